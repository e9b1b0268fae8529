"""The Constitutional AI paper's published JSON files, read: principles, preferences, and few-shot exemplars.

Four shapes are known, each told by itself (Bai et al. 2022, arXiv 2212.08073; the files stand beside the paper):

- an object of entries {prompt: [text], edit_request: text}: principles to critique and to revise by
- a list of texts: what a labeler compares two responses by
- a list of transcripts (Human, Assistant, CritiqueRequest, Critique, RevisionRequest, Revision): exemplars of both stages
- an object, or a list or an object of them, {prompt, corrects: [text], incorrects: [text]}: exemplars for labelers

The users bring the files; none of their texts stands here.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cai_cli import transcripts
from cai_cli.constitution import HHH
from cai_cli.documents import MAX_BYTES, Problem, all_at_once, kind, read_some
from cai_cli.errors import Fix
from cai_cli.visible import on_one_line

T = TypeVar("T")
Row = dict[str, Any]

CATEGORY = "harmlessness"  # what all of these files are about; they state none
SOURCE = "imported from {0}, in the form of the files published with Bai et al. 2022, arXiv 2212.08073"
KNOWN = (
    "readable are the four published files: CritiqueRevisionInstructions.json, RLMadisonInstructions.json, "
    "CritiqueRevisionFewShotPrompts.json, RLMadisonFewShotPrompts.json"
)
_LONE = re.compile("[\ud800-\udfff]")


@dataclass(kw_only=True)
class Imported:
    """What files held, in the fields of a constitution's YAML and of exemplar files."""

    principles: list[Row] = field(default_factory=list)
    preferences: list[Row] = field(default_factory=list)
    exemplars: dict[str, list[Row]] = field(default_factory=dict)  # by stage: critique, revise, label
    sources: dict[str, list[str]] = field(default_factory=dict)  # file names, by what was read from them
    notes: list[str] = field(default_factory=list)  # what was decided or left out on the way, for the user


def read(files: Sequence[Path]) -> Imported:
    """Read files, each by its shape.

    Takes: at least one path, in any order
    Raises: Fix, with every problem of every file: not JSON, none of the four shapes, an entry without its text, a name twice
    """
    found, problems = Imported(), list[Problem]()
    for path in files:
        try:
            value = _parsed(path)
            _reader(value, path)(value, path, found, problems)
        except Fix as fix:
            problems += fix.problems
    problems += _names_twice(found)
    if problems:
        raise all_at_once(problems)
    return found


def constitution_yaml(found: Imported, name: str) -> str:
    """The YAML of a constitution that `constitution.load` reads back, text for text. Takes: at least one principle"""
    files = ", ".join([*found.sources.get("principles", []), *found.sources.get("preferences", [])])
    about = f"Every entry is of the category {CATEGORY}, which these files are about. Change it where it does not fit."
    head = f"# {on_one_line(SOURCE.format(files))}.\n# {about}\n\n"
    parts: Row = {"name": name, "version": "1", "principles": found.principles}
    return head + _dumped(parts | ({"preferences": found.preferences} if found.preferences else {}))


def exemplars_yaml(found: Imported, stage: str) -> str:
    """The YAML of an exemplar file. `stage`: critique, revise or label, one that `found.exemplars` has"""
    source = SOURCE.format(", ".join(found.sources[stage]))
    return _dumped({"stage": stage, "source": source, "exemplars": found.exemplars[stage]})


class _Dumper(yaml.SafeDumper):
    """Every text in double quotes, where nothing in it means anything: YAML 1.1 and 1.2 differ in what a bare word may be."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        for key, _ in node.value:
            key.style = None  # our own field names
        return node


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def _dumped(value: Row) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=130)
    return text


# Reading


def _parsed(path: Path) -> Any:
    """A file's JSON. Raises: Fix"""
    data = read_some(path)
    if len(data) > MAX_BYTES:
        raise Fix(f"{path}: is larger than {MAX_BYTES // 1_000_000} MB, which no file of principles is", KNOWN)
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=functools.partial(_unique, path))
    except UnicodeDecodeError as error:
        raise Fix(f"{path}: is not UTF-8 (byte 0x{data[error.start]:02x} at {error.start})", "save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise Fix(f"{path}:{error.lineno}: this is not JSON: {error.msg} (column {error.colno})", KNOWN) from error
    except RecursionError as error:
        raise Fix(f"{path}: is nested too deep", KNOWN) from error
    if half := _LONE.search(json.dumps(value, ensure_ascii=False)):
        raise Fix(f"{path}: holds half a character (the lone surrogate U+{ord(half[0]):04X})", "save the file anew, as UTF-8")
    return value


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> Row:
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Fix(f"{path}: '{twice[0]}' is there twice", "keep one of them: names tell entries apart")
    return dict(pairs)


Reader = Callable[[Any, Path, Imported, list[Problem]], None]


def _reader(value: Any, path: Path) -> Reader:
    """How a file is read, told by its shape. Raises: Fix: it has none of the four"""
    entries = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if _all_have(entries, "edit_request") and isinstance(value, dict):
        return _principles
    if _all_have([value], "corrects") or _all_have(entries, "corrects"):
        return _comparisons
    if isinstance(value, list) and entries and all(isinstance(entry, str) for entry in entries):
        return _transcripts if any(map(transcripts.is_one, entries)) else _preferences
    raise Fix(f"{path}: {_what(value)} is not the form of any file that can be imported", KNOWN)


def _all_have(entries: Sequence[Any], key: str) -> bool:
    """Whether these are objects with a prompt. Only one of them must have the key: what the others miss is told one by one."""
    prompts = bool(entries) and all(isinstance(entry, dict) and "prompt" in entry for entry in entries)
    return prompts and any(key in entry for entry in entries)


def _what(value: Any) -> str:
    if value in ({}, []):
        return "nothing at all"
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(map(repr, list(value)[:3]))}"
    return f"a list of {kind(value[0])}" if isinstance(value, list) else kind(value)


def _principles(value: Row, path: Path, found: Imported, problems: list[Problem]) -> None:
    for name, entry in value.items():
        prompts = [entry.get("prompt")] if isinstance(entry.get("prompt"), str) else entry.get("prompt")
        critique = _joined(prompts)
        revision = _without(entry.get("edit_request"), "RevisionRequest", "Revision")
        wrong = [*_wrong(path, name, "prompt", critique), *_wrong(path, name, "edit_request", revision)]
        if not name.strip() or name == HHH.name:
            wrong.append((f"{path}: '{name}': cannot be a principle's name", "choose another one"))
        problems += wrong
        if not wrong:
            found.principles.append(_principle(name, critique, revision, path.name))
    found.sources.setdefault("principles", []).append(path.name)


def _principle(name: str, critique: str, revision: str, file: str) -> Row:
    # The files describe nothing: the general template and labelers, who are told a description, are told what is looked for.
    described = f"By this principle the best response is one of which nothing is to be said when this is asked: {critique}"
    return {
        "name": name, "category": CATEGORY, "description": described, "critique_prompt": critique, "revision_prompt": revision,
        "source": SOURCE.format(file),
    }  # fmt: skip


def _joined(prompts: Any) -> str:
    """An entry's critique requests as one: an entry is one principle, however many sentences it asks in. Empty: there is none."""
    if not isinstance(prompts, list) or not all(isinstance(text, str) for text in prompts):
        return ""
    return " ".join(filter(None, (_without(text, "CritiqueRequest", "Critique") for text in prompts)))


def _preferences(value: list[str], path: Path, found: Imported, problems: list[Problem]) -> None:
    for n, text in enumerate(value, start=1):
        asked = _without(text, "", "Options")
        problems += _wrong(path, f"item {n}", "text", asked)
        name = f"preference-{len(found.preferences) + 1:02}"
        found.preferences.append({"name": name, "category": CATEGORY, "text": asked})
    found.sources.setdefault("preferences", []).append(path.name)


def _without(text: Any, opening: str, closing: str) -> str:
    """A text without the words that only join it to others in a transcript. Empty: it is none."""
    if not isinstance(text, str):
        return ""
    begun = re.sub(rf"^\s*{opening}\s*:", "", text) if opening else text
    return re.sub(rf"\b{closing}\s*:\s*$", "", begun).strip()


def _wrong(path: Path, entry: str, key: str, text: str) -> Iterator[Problem]:
    if not text:
        yield f"{path}: '{entry}': {key} holds no text", "write one, or take the entry out"


def _names_twice(found: Imported) -> list[Problem]:
    names = [row["name"] for row in found.principles]
    hint = "rename one of them, or import the files one by one"
    return [(f"two principles are called '{name}'", hint) for name in dict.fromkeys(names) if names.count(name) > 1]


def _transcripts(value: list[str], path: Path, found: Imported, problems: list[Problem]) -> None:
    for n, text in enumerate(value, start=1):
        for one in _taken(functools.partial(transcripts.rounds, text), path, n, problems):
            _add(found, "critique", one.to_critique(), path)
            if one.revision:
                _add(found, "revise", one.to_revise(), path)


def _comparisons(value: Any, path: Path, found: Imported, problems: list[Problem]) -> None:
    whole = isinstance(value, dict) and "corrects" in value
    entries = [value] if whole else list(value.values() if isinstance(value, dict) else value)
    for n, entry in enumerate(entries, start=1):
        rows = _taken(functools.partial(transcripts.comparisons, entry), path, n, problems)
        for row in rows:
            _add(found, "label", row, path)
        if any(row["criterion"] == transcripts.CRITERION for row in rows):
            what = "no question could be told from its conversation, so its prompt is kept as one turn"
            found.notes.append(f"{path}: item {n}: {what}")
        if rows and (left := transcripts.unpaired(entry)):
            found.notes.append(f"{path}: item {n}: {left} of its answers have no counterpart and are left out")


def _taken(take: Callable[[], list[T]], path: Path, n: int, problems: list[Problem]) -> list[T]:
    try:
        return take()
    except transcripts.Broken as broken:
        problems.append((f"{path}: item {n}: {broken}", "mend it, or take the item out"))
        return []


def _add(found: Imported, stage: str, row: Row, path: Path) -> None:
    found.exemplars.setdefault(stage, []).append(row)
    if path.name not in found.sources.setdefault(stage, []):
        found.sources[stage].append(path.name)
