"""cai status"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

from cai_cli.cli._stage import AsJson, ConfigFile, OutputFolder, verb_app

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
    running, ledger, disk = any(run["state"] == "running" for run in history), _ledger(config), _disk(config)
    return {
        "output": str(config.output_path), "state": str(config.state_path), "runs": history, "batches": [],
        "versions": _versions(config.output_path), "ledger": ledger, "disk": disk, "disk_free_bytes": disk["free_bytes"],
        "held_by": "" if running else held_by(config), "go_on": _go_on(last) if last and again else None,
    }  # fmt: skip


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
    inside = [path for path in output.iterdir() if path.name != ".cai"] if output.is_dir() else []
    return {
        "output_bytes": sum(map(_bytes, inside)), "stages": {name: _bytes(output / name) for name in stages},
        "versions": {name: sum(bool(number_of(path.name)) for path in (output / name).iterdir()) for name in stages},
        "staged_bytes": _bytes(output / ".cai" / "staging"), "free_bytes": shutil.disk_usage(_existing(output)).free,
        "ledger_bytes": sum(_bytes(path) for path in (ledger, ledger.with_name(ledger.name + "-wal"))),
    }  # fmt: skip


def _bytes(path: Path) -> int:
    """What a file or a folder takes; files that go away meanwhile, and links, take nothing."""
    if path.is_dir() and not path.is_symlink():
        return sum(_bytes(inside) for inside in path.iterdir())
    try:
        return 0 if path.is_symlink() else path.stat().st_size
    except OSError:
        return 0


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
    from cai_cli.cli.summary import command_line, nearest
    from cai_cli.engine import plan
    from cai_cli.reports.console import console
    from cai_cli.reports.quantities import unpriced
    from cai_cli.reports.run_history import status_page

    out = console()
    if not found["runs"] and not found["versions"] and not found["held_by"]:
        say(f"cai: nothing in {nearest(config.output_path)} yet; start with: {command_line('run', config)}")
        return
    steps = plan.steps_of(config, plan.sections_of(config))
    for part in status_page(found, unpriced({step.name: step.models for step in steps}), out.width):
        out.print(part)
