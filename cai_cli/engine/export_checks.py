"""What must hold before an export is written: files as they were published, a folder that takes it, rows to write."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cai_cli import exports
from cai_cli.config import Config
from cai_cli.engine import plan, versions
from cai_cli.engine.versions import Version
from cai_cli.errors import Exit, Fix
from cai_cli.reports.quantities import reasons

Format = Literal["jsonl", "parquet"]


def change(path: Path, file: Mapping[str, Any]) -> str:
    """What is not as it was when a file was published; empty: nothing, byte for byte.

    Takes: `file`: its entry in the manifest
    Raises: OSError: it cannot be read
    """
    if (size := path.stat().st_size) != file["bytes"]:
        return f"{size:,} bytes, the manifest says {file['bytes']:,}"
    with open(path, "rb") as stream:
        same = hashlib.file_digest(stream, "sha256").hexdigest() == file["sha256"]
    return "" if same else "its sha256 is not the manifest's: it was changed"


def refuse_changed(folder: Path, version: Version, command: str = "") -> None:
    """People train on an export: rows that nobody published must not get into one, nor pass for one.

    Takes: `folder`: the version's, as the user knows it; `command`: what makes it again; empty: what made it
    Raises: Fix (exit 65): a data file is not as its manifest says
    """
    data = [file for file in version.manifest["files"] if file["shard"] is not None]
    changed = [folder / file["name"] for file in data if _is_changed(folder, file)]
    if changed:
        hint = f"delete that version's folder, then run the same command{command}: its rows come back from the ledger"
        *others, last = (f"{path} was changed since it was published" for path in changed)
        raise Fix(last, hint, Exit.INPUT, (*((one, "") for one in others), (last, hint)))


def _is_changed(folder: Path, file: Mapping[str, Any]) -> bool:
    path = folder / file["name"]
    try:
        return bool(change(path, file))
    except FileNotFoundError:
        return True
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror}"
        raise Fix(what, "check its permissions and the disk, then run the same command again", Exit.INPUT) from error


def refuse_dataset(folder: Path) -> None:
    """An export's card would take the place of the card of the stages."""
    if any((folder / stage).is_dir() for stage in plan.stage_names()):
        raise Fix(f"{folder} holds the stages of a dataset, not exports", "give --out a folder of its own, or leave it out")


def refuse_other_format(folder: Path, names: Sequence[str], format: Format) -> None:
    """`datasets` takes one reader for all of a folder: JSONL beside Parquet would not load. Compression is no other format.

    Takes: `names`: the exports that are written there now
    Raises: Fix: another export there is stored otherwise
    """
    others = [name for name in exports.names() if name not in names]
    newest = ((name, versions.latest(folder, name)) for name in others)
    found = [name for name, version in newest if version is not None and format_of(version) not in ("", format)]
    if found:
        there = "jsonl" if format == "parquet" else "parquet"
        all_of_them = " ".join(f"--to {name}" for name in (*found, *names))
        what = (
            f"{folder} holds {', '.join(found)} as {there}, and `datasets` reads one format in a folder: {format} would not load"
        )
        raise Fix(
            what, f"add --format {there}, or --out with another folder, or export all of them: {all_of_them} --format {format}"
        )


def format_of(version: Version) -> str:
    """jsonl or parquet; empty: the version has no row."""
    files = version.files()
    return "" if not files else "parquet" if files[0].suffix == ".parquet" else "jsonl"


def nothing_to_write(config: Config, name: str, source: Version, left: Mapping[str, int]) -> Fix:
    """What to say of an export without a row: `datasets` does not load such a one, and what was there before is better.

    Takes: `left`: what the export leaves out of the source's rows, by reason
    """
    before = {**source.manifest["filtered"], **source.manifest["rejected"]}  # what never became a row of the source
    counts = {reason: count for reason, count in (left or before).items() if count}
    empty = "" if left else f"{source.path.parent.name}/{source.name} has no rows"
    why = ": ".join(filter(None, (empty, reasons(counts) if counts else "")))
    likeliest = max(counts, key=lambda reason: counts[reason], default="")
    return Fix(f"{name} would be empty: {why}", _way(config, likeliest, bool(left)), Exit.INPUT)


def _way(config: Config, reason: str, came_so_far: bool) -> str:
    """What to do about rows that are left out. Takes: `came_so_far`: whether they are rows of the source"""
    if reason == "tie" and came_so_far:
        return f"ties are kept by: {_typed('export', config)} --to preference"
    ways = {
        "tie": f"keep ties: {_typed('debias', config)} --set debias.ties=keep",
        "low_confidence": f"keep less certain pairs: {_typed('debias', config)} --set debias.min_confidence=0.5",
        "truncated": f"ask for longer replies: {_typed('retry', config)} --only truncated --max-tokens 2048",
        "refused": f"look at what was refused: {_typed('show', config)} --flags refused",
    }
    return ways.get(reason, f"look at the rows: {_typed('show', config)}")


def _typed(verb: str, config: Config) -> str:
    return shlex.join(["cai", verb, str(config.path)])
