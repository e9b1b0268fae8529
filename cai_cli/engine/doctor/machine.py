"""Python, packages, open files and the terminal."""

from __future__ import annotations

import platform
import re
import resource
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from cai_cli.engine.doctor.finding import Finding, fail, ok, warn
from cai_cli.engine.pace import AUTO_MOST
from cai_cli.errors import Exit

OWN = "cai-cli"
SPARE_FILES = 64  # open files that a run needs besides its connections
NARROW = 60  # columns below which tables fold too much to be read
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?\s*(?:>=\s*([0-9.]+))?")
_OF_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


class Need(NamedTuple):
    """A package that is required, by `extra` (empty: always), in at least a version (empty: any)."""

    name: str
    version: str
    extra: str
    extras: tuple[str, ...] = ()  # of that package


def findings(concurrency: int | None = None) -> Iterator[Finding]:
    """`concurrency`: the config's; None: auto"""
    yield _python()
    needs = [*_needs()]
    yield _packages([need for need in needs if not need.extra])
    yield _extras([need for need in needs if need.extra])
    yield _open_files(AUTO_MOST if concurrency is None else concurrency)
    yield _terminal()


def _python() -> Finding:
    found = platform.python_version()
    wanted = _project()[0]
    if _numbers(found) < _numbers(wanted):
        return fail(
            "python", f"{found}, and {wanted} or newer is needed", f"uv python install {wanted}", Exit.USAGE, version=found
        )
    return ok("python", f"{found} ({sys.executable})", version=found)


def _packages(needs: Sequence[Need]) -> Finding:
    versions = {need.name: _version(need.name) for need in needs}
    wrong = [_lacking(need, versions[need.name]) for need in needs if _lacks(need, versions[need.name])]
    if wrong:
        return fail("packages", "; ".join(wrong), f"pip install --upgrade {OWN}", Exit.USAGE, versions=versions)
    shown = ", ".join(f"{name} {versions[name]}" for name in ("anthropic", "datasets", "pydantic", "rich") if versions.get(name))
    return ok("packages", f"all {len(needs)} as required, among them {shown}", versions=versions)


def _extras(needs: Sequence[Need]) -> Finding:
    """What is not installed is no mistake: a config that needs it says so."""
    there: dict[str, bool] = {}
    for need in needs:
        inner = [other for other in _needs(need.name) if other.extra in need.extras] if need.extras else [need]
        there[need.extra] = there.get(need.extra, True) and not any(_lacks(one, _version(one.name)) for one in inner)
    absent = [name for name, is_there in there.items() if not is_there]
    said = [", ".join(name for name, is_there in there.items() if is_there)]
    said += [f"not installed: {', '.join(absent)} (pip install '{OWN}[{','.join(absent)}]')"] if absent else []
    return ok("extras", "; ".join(filter(None, said)), extras=there)


def _lacks(need: Need, version: str) -> bool:
    return not version or _numbers(version) < _numbers(need.version)


def _lacking(need: Need, version: str) -> str:
    return f"{need.name} {version or 'is missing'}" + (f", needed is {need.version}" if need.version else "")


def _version(name: str) -> str:
    """The version of an installed package; empty: it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _needs(package: str = OWN) -> Iterator[Need]:
    """What a package requires, as far as `name[extras]>=version; extra == ...` says it."""
    listed = _project()[1] if package == OWN else metadata.requires(package) or [] if _version(package) else []
    for line in listed:
        requirement, _, marker = line.partition(";")
        found, extra = _REQUIREMENT.match(requirement.strip()), _OF_EXTRA.search(marker)
        if found:
            extras = tuple(part.strip() for part in (found[2] or "").split(",") if part.strip())
            yield Need(found[1], found[3] or "", extra[1] if extra else "", extras)


def _project() -> tuple[str, list[str]]:
    """The Python and the packages that cai requires: of a checkout its own file, else what was installed with it."""
    file = Path(__file__).parents[3] / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text("utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        more = [f"{line}; extra == '{name}'" for name, lines in extras.items() for line in lines]
        return project["requires-python"].lstrip(">= "), [*project["dependencies"], *more]
    return (metadata.metadata(OWN)["Requires-Python"] or "").lstrip(">= "), metadata.requires(OWN) or []


def _open_files(concurrency: int) -> Finding:
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = concurrency + SPARE_FILES
    facts = {"open_files": limit, "wanted": wanted}
    if 0 <= limit < wanted:
        more = wanted if most < 0 else min(wanted, most)
        hint = f"ulimit -n {more}" if more >= wanted else f"set limits.concurrency to {max(1, limit - SPARE_FILES)} or less"
        return warn("files", f"at most {limit:,} open; {concurrency:,} requests at once need {wanted:,}", hint, **facts)
    return ok("files", f"at most {limit:,} open; {concurrency:,} requests at once need {wanted:,}", **facts)


def _terminal() -> Finding:
    from cai_cli.reports.console import console, plain

    out, encoding = console(), (sys.stdout.encoding or "unknown").lower()
    is_terminal = out.is_terminal
    said = f"{out.width} columns, {'no colour' if plain(out) else 'colour'}, {encoding}"
    facts = {"terminal": is_terminal, "columns": out.width, "colour": not plain(out), "encoding": encoding}
    if not is_terminal:
        return ok("terminal", f"none: plain lines, {out.width} columns, {encoding}", **facts)
    if out.width < NARROW:
        return warn("terminal", said, f"make it {NARROW} columns or wider: tables fold", **facts)
    if encoding.replace("-", "") != "utf8":
        return warn("terminal", f"{said}: what it has not is shown as \\u....", "export LC_ALL=C.UTF-8", **facts)
    return ok("terminal", said, **facts)
