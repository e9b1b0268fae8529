"""What the shell offers behind TAB: ids, stages, versions, reasons, names of files and parts.

Each function takes the word so far (and the context, where it depends on the words before) and gives what may stand there, each
with a short note or none. They read only, say nothing and never raise: a TAB must not fill the screen. What is offered is put
into a command line as it is, so words of other people's files that a shell would read as more than a word are left out.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import typer

from cai_cli.errors import CaiError, Reject

if TYPE_CHECKING:
    from cai_cli.config import Config
    from cai_cli.engine.versions import Version

P = ParamSpec("P")
Offer = tuple[str, str]  # a word, and a note on it

MOST = 200  # words
PATIENCE_S = 0.7  # for a scan of rows
_WORD = re.compile(r"[\w.:@%+=,/-]+")
# What a broken file, config or folder leads to.
_TROUBLE = (CaiError, Reject, OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, StopIteration)


def _offered(find: Callable[P, Iterable[Offer]]) -> Callable[P, list[Offer]]:
    """What `find` finds, safe for a command line; nothing where it fails."""

    @functools.wraps(find)
    def offer(*args: P.args, **kwargs: P.kwargs) -> list[Offer]:
        try:
            return [one for one in dict(find(*args, **kwargs)).items() if _WORD.fullmatch(one[0])]
        except _TROUBLE:
            return []

    return offer


def _beginning(incomplete: str, words: Iterable[str], note: str = "") -> Iterator[Offer]:
    return ((word, note) for word in words if word.startswith(incomplete))


# Of a dataset, which the words before name.


@_offered
def ids(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Ids of rows in the newest versions, and of rejected ones."""
    found = sorted(_ids(_newest(ctx).values(), incomplete, time.monotonic() + PATIENCE_S))
    if "--" not in _words():
        found = [one for one in found if not one.startswith("-")]  # it would be taken for an option
    # The first and the last must be among those offered: a shell fills in what all of them begin with.
    step = -(-len(found) // MOST) or 1
    return ((one, "") for one in (*found[::step], *found[-1:]))


def _ids(newest: Iterable[Version], prefix: str, until: float) -> set[str]:
    import orjson

    from cai_cli.engine.files import unpacked
    from cai_cli.engine.shards import REJECTS

    found, begin, number = set[str](), b'{"id":' + orjson.dumps(prefix)[:-1], 0
    for path in _files_with_ids(newest, REJECTS):
        with unpacked(path) as lines:
            for line in lines:
                number += 1
                if line.startswith(begin):
                    found.add(orjson.loads(line[6 : line.index(b'","', 6) + 1]))
                if number % 256 == 0 and time.monotonic() > until:
                    return found
    return found


def _files_with_ids(newest: Iterable[Version], rejects: str) -> Iterator[Path]:
    """Files that hold every id once: of the stages that make rows of one kind under the same ids, the first; then all rejects."""
    from cai_cli.engine.plan import shapes
    from cai_cli.records import Expanded, Pair, Sample

    seen, kinds = set[type[Any]](), (Sample, Pair, Expanded)
    for version in (newest := list(newest)):
        shape = shapes()[version.path.parent.name]
        kind = next((kind for kind in kinds if issubclass(shape, kind)), shape)
        yield from () if kind in seen else version.files()
        seen.add(kind)
    yield from (path for version in newest if (path := version.path / rejects).exists())


@_offered
def stages(incomplete: str) -> Iterable[Offer]:
    """Stages of this package and of others."""
    from cai_cli.engine.plan import stage_names

    return _beginning(incomplete, stage_names())


@_offered
def asking_stages(incomplete: str) -> Iterable[Offer]:
    """Stages that ask a model."""
    from cai_cli.engine.plan import stage_names, table_names

    return _beginning(incomplete, (name for name in stage_names() if name not in table_names()))


@_offered
def versions(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Names of versions, the newest first; of one stage where --stage or a stage's name stands before."""
    from cai_cli.engine.versions import number_of

    output = _config(ctx).output_path
    for name in _stages_before(ctx):
        folder = output / name
        there = [path.name for path in folder.iterdir() if number_of(path.name)] if folder.is_dir() else []
        yield from _beginning(incomplete, sorted(there, key=number_of, reverse=True), name)


@_offered
def versions_or_ids(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """What `cai diff` compares: versions, `latest`; once something is typed that begins none, ids."""
    found = [*_beginning(incomplete, ("latest",), "the newest"), *versions(ctx, incomplete)]
    return found if found or not incomplete else ids(ctx, incomplete)


@_offered
def reasons(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Reasons for which rows of the newest versions were rejected, with how many; several may be listed with commas."""
    counts = Counter[str]()
    for version in _newest(ctx).values():
        counts.update(version.manifest["rejected"])
    return _listed(incomplete, {reason: f"{count:,} rejected" for reason, count in counts.items()})


@_offered
def again(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """What can be asked again: reasons of rejects, and rows that were refused or cut off."""
    flags = {"refused": "rows that were refused", "truncated": "rows that were cut off"}
    return _listed(incomplete, flags | {word.rpartition(",")[2]: note for word, note in reasons(ctx, _last(incomplete))})


@_offered
def flags(incomplete: str) -> Iterable[Offer]:
    """Flags of rows; several may be listed with commas."""
    from cai_cli.engine.row_values import FLAGS

    return _listed(incomplete, FLAGS)


@_offered
def names(incomplete: str) -> Iterable[Offer]:
    """Names that a filter may use. Only the last word is filled in: 'not sev' becomes 'not severity'."""
    from cai_cli.engine import row_values

    return ((name, one.note) for name, one in row_values.names().items() if name.startswith(incomplete))


@_offered
def columns(incomplete: str) -> Iterable[Offer]:
    """Columns of rows, of any stage."""
    from cai_cli.engine.plan import shapes
    from cai_cli.records import features

    return _beginning(incomplete, sorted({one["name"] for shape in shapes().values() for one in features(shape)}))


def _last(incomplete: str) -> str:
    return incomplete.rpartition(",")[2]


def _listed(incomplete: str, words: dict[str, str]) -> Iterator[Offer]:
    """The next word of a list with commas."""
    before, comma, _ = incomplete.rpartition(",")
    there = before.split(",")
    return (
        (f"{before}{comma}{word}", note)
        for word, note in words.items()
        if word.startswith(_last(incomplete)) and word not in there
    )


def _given(ctx: typer.Context, name: str, *options: str) -> str | None:
    """What an option before the word says. Behind an option whose value is being typed the context knows nothing yet."""
    words = _words()
    there = (words[at + 1] for at, word in enumerate(words[:-1]) if word in options)
    return ctx.params.get(name) or next(there, None)


def _words() -> list[str]:
    """The command line so far: from bash, or from the other shells."""
    return split(os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or "")


def split(line: str) -> list[str]:
    """A line's words, as a shell reads them, with a quote that does not end yet, too."""
    for quote in ("", "'", '"'):
        try:
            return shlex.split(line + quote)
        except ValueError:
            continue
    return line.split()


def _config(ctx: typer.Context) -> Config:
    from cai_cli.config import load

    path = ctx.params.get("config") or next(word for word in _words() if word.endswith((".yaml", ".yml")))
    return load(Path(path), flags={"output": _given(ctx, "output", "-o", "--output")})


def _stages_before(ctx: typer.Context) -> tuple[str, ...]:
    """The stage that --stage names, or all."""
    from cai_cli.engine.plan import stage_names

    stage = (_given(ctx, "stage", "--stage") or "").replace("_", "-")
    return (stage,) if stage in stage_names() else stage_names()


def _newest(ctx: typer.Context) -> dict[str, Version]:
    """The newest version of each stage, or of the one that --stage names."""
    from cai_cli.engine.versions import latest

    output = _config(ctx).output_path
    return {name: version for name in _stages_before(ctx) if (version := latest(output, name)) is not None}


# Of the package, and of what others add to it.


@_offered
def formats(incomplete: str) -> Iterable[Offer]:
    """Export formats."""
    from cai_cli import exports

    return _beginning(incomplete, exports.names())


@_offered
def providers(incomplete: str) -> Iterable[Offer]:
    """Providers of models."""
    from cai_cli import providers as sources

    return _beginning(incomplete, sources.names())


@_offered
def analyses(incomplete: str) -> Iterable[Offer]:
    """Analyses: the files of their folder."""
    folder = Path(__file__).parent.parent / "analyses"
    return _beginning(incomplete, sorted(path.stem for path in folder.glob("[a-z]*.py")))


@_offered
def constitutions(incomplete: str) -> Iterable[Offer]:
    """Shipped constitutions by name, and YAML files."""
    from cai_cli.shipped import shipped

    shelf = sorted(path.stem for path in shipped("configs", "constitutions").glob("*.yaml"))
    return [*_beginning(incomplete, shelf, "shipped"), *_files(incomplete)]


@_offered
def topics(incomplete: str) -> Iterable[Offer]:
    """What `cai help` explains: topics, and verbs."""
    from cai_cli.cli import VERBS
    from cai_cli.cli.help import TOPICS

    known = {**VERBS, **TOPICS}
    return ((name, known[name]) for name in (*TOPICS, *VERBS) if name.startswith(incomplete))


@_offered
def parts(ctx: typer.Context, incomplete: str) -> Iterable[Offer]:
    """Of a topic of `cai help`: stages whose rows it explains, sections of a config."""
    from cai_cli.reports import reference

    topic = ctx.params.get("topic") or next(iter(_words()[2:]), "")
    if topic == "rows":
        return _beginning(incomplete, (*reference.row_stages(), "rejects"))
    return _beginning(incomplete, (one.path for one in reference.config_parts() if one.path and topic == "config"))


@_offered
def live(incomplete: str) -> Iterable[Offer]:
    """How requests are sent."""
    return _beginning(incomplete, ("live",))


@_offered
def local(incomplete: str) -> Iterable[Offer]:
    """What runs the partitions."""
    return _beginning(incomplete, ("local",))


@_offered
def templates(incomplete: str) -> Iterable[Offer]:
    """Shipped prompt templates, by the name that a config gives."""
    from cai_cli.shipped import shipped

    found: dict[str, list[str]] = {}
    for stage, _, name in sorted(path.stem.partition("-") for path in shipped("prompts").glob("*-*.md")):
        found.setdefault(name, []).append(stage)
    return ((name, ", ".join(stages)) for name, stages in found.items() if name.startswith(incomplete))


@_offered
def configs(incomplete: str) -> Iterable[Offer]:
    """YAML files here and one folder below, by the path that was begun."""
    return _files(incomplete)


def _files(incomplete: str) -> Iterator[Offer]:
    begun, _, rest = incomplete.rpartition("/")
    folder = Path(f"{begun}/" if begun or incomplete.startswith("/") else ".")
    near = [path for path in folder.iterdir() if path.name.startswith(rest) and (rest or not path.name.startswith("."))]
    below = (one for path in sorted(near)[:MOST] if path.is_dir() for one in path.iterdir())
    found = sorted(str(path) for path in (*near, *below) if path.suffix in (".yaml", ".yml") and path.is_file())
    # Typed as begun: `./` and the like would be taken off, and the shell would not know its own word again.
    head = incomplete[: len(incomplete) - len(rest)]
    return ((head + path[len(str(folder)) + 1 :] if str(folder) != "." else head + path, "") for path in found[:MOST])
