"""What stands between this machine and a run, looked at one thing after the other. Nothing is bought unless that is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from cai_cli.config import Config, load
from cai_cli.engine.doctor import keys, machine, network, storage
from cai_cli.engine.doctor.finding import Finding, fail
from cai_cli.errors import Exit, Fix
from cai_cli.flow import Model


def of_machine() -> Iterator[Finding]:
    """Without a config: Python, packages, terminal, and every key that there is."""
    yield from machine.findings()
    yield from keys.findings()


def of_config(path: Path, output: str | None, offline: bool, ask: bool) -> Iterator[Finding]:
    """With one: also its servers, models, disk, lock and ledger. `ask`: pay for one small question to each model."""
    try:
        config = load(path, flags={"output": output})
        models = models_of(config)
    except Fix as fix:
        yield from machine.findings()
        yield from (fail("config", message, hint, fix.code) for message, hint in fix.problems)
        return
    limit = config.limits.concurrency
    yield from machine.findings(None if limit == "auto" else limit)
    yield from storage.findings(config)
    yield from network.findings(models, offline=offline, ask=ask)
    if config.prompts is not None and config.prompts.dataset:
        yield keys.hub()


def models_of(config: Config) -> list[Model]:
    """Every model that the config's stages ask, each once. Raises: Fix"""
    from cai_cli.engine import plan

    names = [*plan.sections_of(config), *plan.alone_of(config)]
    asked = [model for name in names for step in plan.steps_of(config, [name]) for model in step.models]
    return [model for n, model in enumerate(asked) if model not in asked[:n]]


def code_of(findings: Iterable[Finding]) -> Exit:
    """The exit code: that of the first thing that fails; 0: nothing does."""
    return next((one.code for one in findings if one.mark == "fail"), Exit.OK)
