"""The house: imports point down only, pure parts touch nothing outside, and everything stays small enough to read."""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cai_cli import stages

PACKAGE = Path(__file__).parent.parent / "cai_cli"
LAYERS = (
    {"__init__", "errors", "chance", "records", "flow", "remembered", "shipped", "visible", "registry"},
    {
        "documents", "settings", "validation", "meanings", "votes", "constitution", "importing", "oversights",
        "transcripts", "prompts", "prices", "price_lists", "caching", "logprobs", "exemplars", "parts", "judging", "scoring",
        "several", "openers", "features", "probes", "probing", "auditing",
    },
    {"stages", "tables", "providers", "exports", "bias", "analyses"},
    {"engine", "config", "checks", "reports", "simulate"},
    {"cli", "__main__"},
)  # fmt: skip
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
MAY_USE = {("tables", "bias"), ("analyses", "bias"), ("auditing", "bias")}
OUTSIDE = {
    "os", "socket", "ssl", "pathlib", "shutil", "tempfile", "sqlite3", "aiohttp", "subprocess", "urllib", "http", "requests",
    "asyncio", "threading", "time", "random", "anthropic", "datasets",
}  # fmt: skip
PURE = (
    "stages", "tables", "bias", "analyses", "errors", "chance", "records", "flow", "visible", "votes", "logprobs", "judging",
    "scoring", "several", "openers", "features", "probes", "probing", "auditing",
)  # fmt: skip
REGISTRIES = {"stages/__init__.py", "probes/__init__.py"}  # they look for other packages' parts, and for nothing else
LONGEST_FUNCTION, LONGEST_FILE = 60, 450  # lines

FILES = sorted(path for path in PACKAGE.rglob("*.py") if "shipped_files" not in path.parts)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def part(path: Path) -> str:
    """The module or folder right under cai_cli that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, module: ast.Module) -> Iterator[tuple[int, str]]:
    """Every import of a file, also those inside functions: line, and the dotted name that is bound or reached."""
    package = ["cai_cli", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{name}.{alias.name}") for alias in node.names)


def own_parts(path: Path, module: ast.Module) -> Iterator[tuple[int, str]]:
    """What a file imports of this package, as the parts right under cai_cli."""
    for line, name in imports(path, module):
        words = name.split(".")
        if words[0] == "cai_cli" and len(words) > 1:
            yield line, words[1] if words[1] in LAYER else "__init__"


def wrong_imports(path: Path, module: ast.Module) -> list[str]:
    me = part(path)
    return [
        f"{path.relative_to(PACKAGE)}:{line}: {me} imports {other}"
        for line, other in own_parts(path, module)
        if other != me and (me, other) not in MAY_USE and not _points_down(me, other)
    ]


def _points_down(me: str, other: str) -> bool:
    # Modules of layers 0, 1, 3 and 4 may use their neighbours; the folders of layer 2 never do.
    return LAYER[other] < LAYER[me] or (LAYER[other] == LAYER[me] != 2)


def test_every_part_has_its_layer() -> None:
    assert {part(path) for path in FILES} - LAYER.keys() == set()


def test_imports_point_down_only() -> None:
    assert [wrong for path in FILES for wrong in wrong_imports(path, tree(path))] == []


@pytest.mark.parametrize(
    ("file", "source", "found"),
    [
        ("stages/x.py", "def f():\n    from cai_cli import engine", "stages imports engine"),
        ("stages/x.py", "from cai_cli.tables import debias", "stages imports tables"),
        ("stages/x.py", "from ..providers import names", "stages imports providers"),
        ("stages/x.py", "from .. import config", "stages imports config"),
        ("records.py", "import cai_cli.prompts as p", "records imports prompts"),
        ("bias/x.py", "if True:\n    import cai_cli.tables.debias", "bias imports tables"),
        ("engine/x.py", "from cai_cli.cli.errors import say", "engine imports cli"),
    ],
)
def test_an_import_that_points_up_is_seen(file: str, source: str, found: str) -> None:
    (said,) = wrong_imports(PACKAGE / file, ast.parse(source))
    assert said.endswith(found)


def test_what_is_allowed_is_not_accused() -> None:
    allowed = "from cai_cli import chance, __version__\nfrom cai_cli.bias import position\nimport numpy\nfrom ._columns import x"
    assert wrong_imports(PACKAGE / "tables/x.py", ast.parse(allowed)) == []


def test_layer_0_needs_the_standard_library_only() -> None:
    foreign = [
        f"{path.name}: {name}"
        for path in FILES
        if LAYER[part(path)] == 0
        for _, name in imports(path, tree(path))
        if name.split(".")[0] not in {*sys.stdlib_module_names, "cai_cli"}
    ]
    assert foreign == []


def test_pure_parts_touch_no_disk_no_network_no_clock() -> None:
    touched = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in FILES
        if part(path) in PURE and str(path.relative_to(PACKAGE)) not in REGISTRIES
        for line, name in imports(path, tree(path))
        if name.split(".")[0] in OUTSIDE
    ]
    assert touched == []
    opened = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in FILES
        if part(path) in PURE
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "print", "input")
    ]
    assert opened == []


def test_functions_and_files_stay_short() -> None:
    long_functions = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > LONGEST_FUNCTION
    ]
    long_files = [str(path.relative_to(PACKAGE)) for path in FILES if len(path.read_text("utf-8").splitlines()) > LONGEST_FILE]
    assert (long_functions, long_files) == ([], [])


def test_every_stage_says_what_it_takes_gives_asks_and_rejects() -> None:
    found = {}
    for name in (module.name for module in pkgutil.iter_modules(stages.__path__) if not module.name.startswith("_")):
        module = importlib.import_module(f"cai_cli.stages.{name}")
        classes = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
        (stage,) = [kind for kind in classes if not kind.__name__.startswith("_") and "__call__" in vars(kind)]
        found[name] = re.findall(r"\b(Takes|Gives|Asks|Rejects|Source):", stage.__doc__ or "")
    assert {"generate", "critique", "revise", "label_pairs"} <= found.keys()
    assert {name: labels for name, labels in found.items() if not {"Takes", "Gives", "Asks", "Rejects"} <= set(labels)} == {}


def test_nothing_swallows_every_exception_in_silence() -> None:
    silent = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")))
        and all(isinstance(line, ast.Pass | ast.Continue) for line in node.body)
    ]
    assert silent == []
