"""cai status"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cai_cli.cli._stage import AsJson, ConfigFile, OutputFolder, verb_app

if TYPE_CHECKING:
    from cai_cli.errors import CaiError

HELP = """What is done, spent, rejected and running. Looks only: it takes no lock and disturbs no run.

Speed and time left are those of the last two minutes. A run that was stopped or killed is shown with the command that goes on.

\b
Examples:
  cai status configs/quickstart.yaml
  cai status my.yaml -o data/other
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
        from cai_cli.cli._answer import print_json

        print_json(found)
    else:
        _print(loaded, found)


def _gathered(config: Any) -> dict[str, Any]:
    """All that is known of an output, as `--json` gives it."""
    from cai_cli.engine import runs
    from cai_cli.engine.lock import held_by

    history = list(runs.all_of(config.state_path, config.output_path))
    last = history[-1] if history else None
    again = last is not None and last["state"] in ("stopped", "killed", "failed")
    running, disk = any(run["state"] == "running" for run in history), _disk(config)
    damaged: list[dict[str, str]] = []
    return {
        "output": str(config.output_path), "state": str(config.state_path), "runs": history, "batches": [],
        "versions": _versions(config.output_path, damaged), "ledger": _ledger(config, damaged), "damaged": damaged,
        "disk": disk, "disk_free_bytes": disk["free_bytes"],
        "held_by": "" if running else held_by(config), "go_on": _go_on(last) if last and again else None,
    }  # fmt: skip


def _damage(error: CaiError) -> dict[str, str]:
    return {"what": error.message, "hint": error.hint}


def _go_on(run: dict[str, Any]) -> str:
    """The command that takes a run up again, from where we are."""
    from cai_cli.cli.summary import without_cap

    command = without_cap(str(run["command"])) if run.get("raise_cap") else str(run["command"])
    folder = run.get("folder", "")
    return command if folder in ("", str(Path.cwd())) else f"cd {shlex.quote(folder)} && {command}"


def _disk(config: Any) -> dict[str, Any]:
    """Bytes: of the output, of all versions of each stage, of what is staged for the next, of the ledger; and free."""
    from cai_cli.engine import plan
    from cai_cli.engine.versions import number_of

    output, ledger = config.output_path, config.state_path / "ledger.sqlite"
    stages = [name for name in plan.stage_names() if (output / name).is_dir()]
    inside = [path for path in _inside(output) if path.name != ".cai"]
    return {
        "output_bytes": sum(map(_bytes, inside)), "stages": {name: _bytes(output / name) for name in stages},
        "versions": {name: sum(bool(number_of(path.name)) for path in _inside(output / name)) for name in stages},
        "staged_bytes": _bytes(output / ".cai" / "staging"), "free_bytes": shutil.disk_usage(_existing(output)).free,
        "ledger_bytes": sum(_bytes(path) for path in (ledger, ledger.with_name(ledger.name + "-wal"))),
    }  # fmt: skip


def _bytes(path: Path) -> int:
    """What a file or a folder takes; files that go away meanwhile, and links, take nothing."""
    if path.is_dir() and not path.is_symlink():
        return sum(map(_bytes, _inside(path)))
    try:
        return 0 if path.is_symlink() else path.stat().st_size
    except OSError:
        return 0


def _inside(folder: Path) -> list[Path]:
    """What is in a folder; nothing where it is not there, or not there any more."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _versions(output: Path, damaged: list[dict[str, str]]) -> dict[str, Any]:
    """The newest version of each stage; `damaged` gets what can be told of those that cannot be read."""
    from cai_cli.engine import plan, versions
    from cai_cli.errors import Fix

    found = {}
    for stage in plan.stage_names():
        try:
            version = versions.latest(output, stage)
        except Fix as error:
            damaged.append(_damage(error))
            continue
        if version is not None:
            found[stage] = {"version": version.name} | {key: version.manifest[key] for key in ("rows", "rejected", "filtered")}
    return found


def _ledger(config: Any, damaged: list[dict[str, str]]) -> dict[str, Any] | None:
    """The ledger's size, and this output's dollars over all runs; unsettled: in flight now, or when a run was killed.

    Dollars are None where the ledger cannot be read, which `damaged` is told.
    """
    from cai_cli.errors import Fatal

    path = config.state_path / "ledger.sqlite"
    if not path.exists():
        return None
    settled: float | None = None
    unsettled: float | None = None
    try:
        settled, unsettled = _spending(path, config)
    except Fatal as error:
        damaged.append(_damage(error))
    size = sum(_bytes(file) for file in (path, path.with_name(path.name + "-wal")))
    return {"path": str(path), "bytes": size, "dollars": settled, "dollars_unsettled": unsettled}


def _spending(path: Path, config: Any) -> tuple[float, float]:
    from cai_cli.engine.ledger import reading, spent
    from cai_cli.engine.runs import own

    with reading(path) as db:
        settled, unsettled = spent(db, str(config.output_path.resolve()), own(config.state_path, config.output_path))
    return settled, max(0.0, unsettled)


def _print(config: Any, found: dict[str, Any]) -> None:
    from cai_cli.cli.errors import say
    from cai_cli.cli.summary import command_line, nearest
    from cai_cli.engine import plan
    from cai_cli.reports.console import console
    from cai_cli.reports.quantities import unpriced
    from cai_cli.reports.run_history import status_page

    out = console()
    if not any(found[what] for what in ("runs", "versions", "held_by", "damaged")):
        say(f"cai: nothing in {nearest(config.output_path)} yet; start with: {command_line('run', config)}")
        return
    steps = plan.steps_of(config, plan.sections_of(config))
    for part in status_page(found, unpriced({step.name: step.models for step in steps}), out.width):
        out.print(part, soft_wrap=getattr(part, "no_wrap", None) is True)
