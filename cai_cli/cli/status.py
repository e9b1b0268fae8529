"""cai status"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from cai_cli.cli._stage import AsJson, ConfigFile, OutputFolder, verb_app

HELP = """What is done, spent, rejected and running. Looks only: it takes no lock and disturbs no run.

\b
Examples:
  cai status configs/quickstart.yaml
  watch -n 5 cai status my.yaml
  cai status my.yaml --json | jq .ledger.dollars
"""

app = verb_app()


@app.command(help=HELP, no_args_is_help=True)
def command(
    config: ConfigFile,
    output: OutputFolder = None,
    json: AsJson = False,
) -> None:
    from cai_cli.config import load

    loaded = load(config, flags={"output": output})
    found = _gathered(loaded)
    if json:
        import orjson

        sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        _print(loaded, found)


def _gathered(config: Any) -> dict[str, Any]:
    """All that is known of an output, as `--json` gives it."""
    from cai_cli.engine import runs

    history = list(runs.all_of(config.state_path, config.output_path))
    last = history[-1] if history else None
    again = last is not None and last["state"] in ("stopped", "killed", "failed")
    return {
        "output": str(config.output_path), "runs": history, "versions": _versions(config.output_path),
        "ledger": _ledger(config), "disk_free_bytes": shutil.disk_usage(_existing(config.output_path)).free,
        "go_on": _go_on(last) if last and again else None,
    }  # fmt: skip


def _go_on(run: dict[str, Any]) -> str:
    from cai_cli.cli.summary import without_cap

    command = str(run["command"])
    return without_cap(command) if run.get("raise_cap") else command


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _versions(output: Path) -> dict[str, Any]:
    from cai_cli.engine import plan, versions

    newest = {stage: versions.latest(output, stage) for stage in plan.stage_names()}
    return {
        stage: {"version": version.name} | {key: version.manifest[key] for key in ("rows", "rejected", "filtered")}
        for stage, version in newest.items()
        if version is not None
    }


def _ledger(config: Any) -> dict[str, Any] | None:
    """The ledger's size, and this output's dollars over all runs; unsettled: in flight now, or when a run was killed."""
    path = config.state_path / "ledger.sqlite"
    if not path.exists():
        return None
    settled, unsettled = _spending(path, str(config.output_path.absolute()))
    size = sum(file.stat().st_size for file in (path, path.with_name(path.name + "-wal")) if file.exists())
    return {"path": str(path), "bytes": size, "dollars": settled, "dollars_unsettled": unsettled}


def _spending(path: Path, job: str) -> tuple[float, float]:
    from cai_cli.engine.ledger import reading

    asked = "SELECT coalesce(sum(settled), 0.0), coalesce(sum(max(leased - settled, 0)), 0.0) FROM spending WHERE job = ?"
    with reading(path) as db:
        settled, unsettled = db.execute(asked, (job,)).fetchone()
    return settled, unsettled


def _print(config: Any, found: dict[str, Any]) -> None:
    from cai_cli.cli.errors import say
    from cai_cli.engine import plan
    from cai_cli.reports.console import console
    from cai_cli.reports.quantities import unpriced
    from cai_cli.reports.run_history import status_page

    out = console()
    if not found["runs"] and not found["versions"]:
        say(f"cai: nothing in {config.output_path} yet; start with: cai run {config.path}")
        return
    steps = plan.steps_of(config, plan.sections_of(config))
    for part in status_page(found, unpriced({step.name: step.models for step in steps}), out.width):
        out.print(part)
