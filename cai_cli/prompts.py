"""The words put to a model, and how its words are read: templates, the fences around data, strict structured replies.

A template is a file: front matter between two lines of dashes, then a text. Data goes into it once and is never rendered itself.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cai_cli import chance, documents
from cai_cli.documents import Document, Problem
from cai_cli.errors import Fix
from cai_cli.flow import Flow, Reply, Request
from cai_cli.records import Turn
from cai_cli.shipped import shipped

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Offer:
    """What a stage hands to its templates: each variable with a stand-in, and those that no template can do without."""

    values: Mapping[str, object]
    required: tuple[str, ...]
    replies: tuple[str, ...] = ("text", "json")


_DATA = {"conversation": "text", "nonce": "text"}
_OFFERS = {
    "critique": _Offer(
        _DATA
        | {"response": "text", "principle": "text", "category": "text", "description": "text", "critique_prompt": "text"}
        | {"examples": ["text"], "max_suggestions": 1},
        ("response", "critique_prompt"),
    ),
    "revise": _Offer(
        _DATA | {"response": "text", "critiques": "text", "revision_prompts": ["text"]},
        ("response",),
        ("text",),
    ),
    "label": _Offer(
        _DATA
        | {"first": "text", "second": "text", "first_label": "text", "second_label": "text", "criterion": "text"}
        | {"category": "text", "reasoning": True, "words": False},
        ("first", "second", "first_label", "second_label", "criterion"),
    ),
    "score": _Offer(_DATA | {"response": "text", "criterion": "text", "description": "text"}, ("response", "description")),
    "critiques": _Offer(
        _DATA | {"response": "text", "principles": ["text"], "max_suggestions": 1}, ("response", "principles"), ("json",)
    ),
    "scores": _Offer(_DATA | {"response": "text", "criteria": ["text"]}, ("response", "criteria"), ("json",)),
    "expand": _Offer(
        {"kind": "text", "contrast": True, "topic": "text", "examples": ["text"], "count": 1, "nonce": "text"},
        ("examples", "count"),
        ("json",),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A text with places for data. `reply` says what is asked for: text, or json that satisfies the stage's schema."""

    name: str
    stage: str
    purpose: str
    source: str
    variables: tuple[str, ...]
    reply: str  # text | json
    fingerprint: str  # SHA-256 of the file's text
    body: str = field(repr=False)

    def fill(self, **values: object) -> str:
        """The text with the values in their places; what looks like a template in a value stays as it is."""
        text: str = _compiled(self.body).render(values)
        return text

    def constant(self, **settings: object) -> int:
        """How many characters at the beginning of the filled text recur from row to row: whole paragraphs, down to the first that
        holds a variable which is not among the settings.

        Takes: the variables that are the same for many rows, with their values
        """
        return _constant(self.body, self.variables, tuple(settings.items()))


@functools.cache
def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)


@functools.cache
def _compiled(body: str) -> Any:
    return _environment().from_string(body)


@functools.lru_cache(maxsize=1024)  # a stage has few settings; some of them are drawn
def _constant(body: str, variables: tuple[str, ...], settings: tuple[tuple[str, object], ...]) -> int:
    given = dict(settings)
    beginning: str = _environment().from_string(_before(body, set(variables) - given.keys())).render(given)
    end = beginning.rfind("\n\n")
    return end + 2 if end >= 0 else 0


def _before(body: str, names: set[str]) -> Any:
    """What stands in a template before the first place where one of the variables is used, as a parsed template."""
    from jinja2 import nodes

    whole = _environment().parse(body)
    parts = [part for node in whole.body for part in (node.nodes if isinstance(node, nodes.Output) else [node])]
    kept = itertools.takewhile(lambda part: names.isdisjoint(_names_in(part)), parts)
    whole.body = [nodes.Output([part]) if isinstance(part, nodes.Expr) else part for part in kept]
    return whole


def _names_in(part: Any) -> set[str]:
    from jinja2 import nodes

    return {one.name for one in (part, *part.find_all(nodes.Name)) if isinstance(one, nodes.Name)}


def find(name: str, stage: str, folder: Path) -> Template:
    """Find, read and check a template.

    Takes: a file's path (it ends in .md) or a plain name, which is the file STAGE-NAME.md; both are looked for in `folder` (the
    config's), its prompts/, ./prompts and the shipped ones, in this order. label_pairs looks for label-NAME.
    Raises: Fix: no such template, or with every problem of its file as file:line
    """
    kind = stage.partition("_")[0]
    file_name = name if name.endswith(".md") else f"{kind}-{name}.md"
    folders = (folder, folder / "prompts", Path("prompts"), shipped("prompts"))
    path = next((path for place in folders if (path := place / file_name).is_file()), None)
    if path is None and name.endswith(".md"):
        raise not_found(name, stage, folders)
    if path is None:
        names = sorted({file.stem.removeprefix(f"{kind}-") for place in folders[1:] for file in place.glob(f"{kind}-*.md")})
        close = difflib.get_close_matches(name, names, 1)
        raise Fix(
            f"there is no template '{name}' for {stage}",
            f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names)}",
        )
    return load(path, stage)


def not_found(name: str, stage: str, folders: Sequence[Path]) -> Fix:
    """The error of a file that a stage names by its path. Takes: where it was looked for, in this order"""
    *before, last = dict.fromkeys(map(str, folders))
    where = f"looked in {', '.join(before)} and {last}"
    return Fix(f"there is no file '{name}' for {stage}", "check the path" if Path(name).is_absolute() else where)


def load(path: Path, stage: str) -> Template:
    """Read a template's file and check it against what the stage offers. Raises: Fix, with every problem as file:line"""
    return _checked(_read(path), path, stage)


@functools.lru_cache(maxsize=64)  # a config is checked before its stages are built
def _checked(text: str, path: Path, stage: str) -> Template:
    lines = text.split("\n")
    end = next((n for n, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if lines[0].rstrip() != "---" or end is None:
        raise Fix(
            f"{path}:1: a template begins with its front matter between two lines ---", "see the shipped prompts for an example"
        )
    document = documents.loads("\n".join(lines[1:end]), str(path), first_line=2)
    body = "\n".join(lines[end + 1 :])
    problems = _check_front(document, stage.partition("_")[0]) or _check_body(document, body, end + 1, stage.partition("_")[0])
    if problems:
        raise documents.all_at_once(problems)
    front = {"source": "", "reply": "text"} | document.value
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return Template(
        **front | {"variables": tuple(front["variables"])}, name=path.stem, fingerprint=fingerprint, body=body.strip()
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise Fix(f"{path}: cannot be read: {error.strerror or error}", "check the path") from error
    except UnicodeDecodeError as error:
        raise Fix(f"{path}:1: this is not UTF-8", "save the file as UTF-8") from error


_FRONT = {"purpose": True, "stage": True, "source": False, "variables": True, "reply": False}  # True: it must be there


def _check_front(document: Document, kind: str) -> list[Problem]:
    known = f"known are: {', '.join(_FRONT)}"
    problems = [(f"{document.where((key,))}: unknown key '{key}'", known) for key in document.value if key not in _FRONT]
    for key, needed in _FRONT.items():
        if key not in document.value:
            problems += [(f"{document.where()}: '{key}' is missing", f"add '{key}: ...'")] * needed
        elif key != "variables" and not isinstance(document.value[key], str):
            problems.append((f"{document.where((key,))}: {key}: must be text", "put it in quotes"))
        elif key == "variables" and not _is_texts(document.value[key]):
            problems.append((f"{document.where((key,))}: {key}: must be a list of names", "write [response, nonce]"))
    return problems + _check_stage(document, kind)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check_stage(document: Document, kind: str) -> list[Problem]:
    stage, reply = document.value.get("stage"), document.value.get("reply")
    problems = []
    if isinstance(stage, str) and stage.partition("_")[0] != kind:
        problems.append(
            (f"{document.where(('stage',))}: this is a template for {stage}, not for {kind}", "name another template")
        )
    replies = _OFFERS[kind].replies if kind in _OFFERS else ("text", "json")
    if isinstance(reply, str) and reply not in replies:
        problems.append((f"{document.where(('reply',))}: reply: cannot be '{reply}' here", f"write {' or '.join(replies)}"))
    return problems


def _check_body(document: Document, body: str, lines_before: int, kind: str) -> list[Problem]:
    from jinja2 import TemplateSyntaxError, meta

    try:
        used = meta.find_undeclared_variables(_environment().parse(body)) - set(_environment().globals)
    except TemplateSyntaxError as error:
        return [(f"{document.name}:{lines_before + error.lineno}: {error.message}", "Jinja2 reads {{ }}, {% %} and {# #} here")]
    declared = document.value["variables"]
    offer = _OFFERS.get(kind, _Offer(dict.fromkeys(declared, "text"), ()))
    return _check_variables(document, body, lines_before, used, offer) or _check_fill(document, body, lines_before, offer)


def _check_variables(document: Document, body: str, lines_before: int, used: set[str], offer: _Offer) -> list[Problem]:
    declared, place = document.value["variables"], document.where(("variables",))
    offered = f"there are: {', '.join(offer.values)}"
    problems = [(f"{place}: '{name}' is listed but not used", _unused(name, offer)) for name in declared if name not in used]
    for name in sorted(used - set(declared)):
        line = next((n for n, text in enumerate(body.split("\n"), lines_before + 1) if name in text), lines_before + 1)
        close = difflib.get_close_matches(name, list(offer.values), 1)
        hint = f"did you mean '{close[0]}'?" if close and name not in offer.values else f"add '{name}' to variables"
        problems.append((f"{document.name}:{line}: '{name}' is used but not listed in variables", hint))
    problems += [
        (f"{place}: this stage has no '{name}'", offered) for name in declared if name in used and name not in offer.values
    ]
    problems += [(f"{place}: '{name}' must be used", _NEEDED) for name in offer.required if name not in {*used, *declared}]
    return problems


_NEEDED = "the model cannot answer without it"


def _unused(name: str, offer: _Offer) -> str:
    return f"put {{{{ {name} }}}} into the text: {_NEEDED}" if name in offer.required else "delete it from variables"


def _check_fill(document: Document, body: str, lines_before: int, offer: _Offer) -> list[Problem]:
    """Fill it once with stand-ins: what fails on every row is found before a row is asked about."""
    from jinja2 import TemplateError

    try:
        _compiled(body.strip()).render(offer.values)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        return [
            (
                f"{document.name}:{lines_before + 1}: cannot be filled: {error}",
                "every variable is a text, a list of texts or a number",
            )
        ]
    return []


def nonce(texts: Sequence[str], *key: object) -> str:
    """Eight hexadecimal digits that stand in none of the texts, so that no text can close the fence around it.

    Nor do digits that look like them: whoever knows the key could guess them, and a model reads leniently.
    """
    plain = [*texts, *map(_as_hex, texts)]
    drawn = (chance.nonce(*key, step) for step in itertools.count())
    return next(mark for mark in drawn if not any(mark in text for text in plain))


_UNSEEN = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e01ef]+")
# Cyrillic and Greek letters, and the digits that they look like.
_LIKE_HEX, _HEX = "\u0430\u0441\u0501\u0435\u043e\u03bf\u0437\u0431", "acde0036"


def _as_hex(text: str) -> str:
    """The text with all that looks like a digit of a nonce as that digit."""
    if text.isascii():
        return text.lower()
    plain = folded(text).lower()
    # Translating costs a hundred times as much as looking for what there is to translate.
    return plain.translate(str.maketrans(_LIKE_HEX, _HEX)) if any(letter in plain for letter in _LIKE_HEX) else plain


@functools.lru_cache(maxsize=64)  # a pair's texts are put into several questions
def folded(text: str) -> str:
    """A text as a lenient reader may take it: compatibility forms as the plain ones, without letters that cannot be seen."""
    return text if text.isascii() else _UNSEEN.sub("", unicodedata.normalize("NFKC", text))


def repeats(reply: str, texts: Iterable[str]) -> bool:
    """Whether a reply is nothing but a part of one of the texts, white space aside: then it says what they say."""
    said = "".join(reply.split())
    return any(said in "".join(text.split()) for text in texts)


def fenced(tag: str, nonce: str, text: str) -> str:
    """A text between two lines that only its writer could have written."""
    return f"<{tag}-{nonce}>\n{text}\n</{tag}-{nonce}>"


_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
# Some readers take more than a line feed for the end of a line.
_BEGINS = r"(?:^|[\r\v\f\x1c-\x1e\x85\u2028\u2029])"
_FORGED = re.compile(rf"{_BEGINS}\s*(?:human|assistant|user|system)\s*:", re.IGNORECASE | re.MULTILINE)


def transcript(messages: Sequence[Turn], nonce: str = "") -> str:
    """A conversation as one text. Where a turn's text looks like another turn, the real ones are marked with the nonce."""
    mark = f"-{nonce}" if nonce and any(_forged(folded(turn.content)) for turn in messages) else ""
    return "\n\n".join(f"{_SPEAKERS.get(turn.role, turn.role)}{mark}: {turn.content}" for turn in messages)


def _forged(text: str) -> bool:
    # Looking for a colon costs a hundredth of looking for what stands before it.
    return ":" in text and _FORGED.search(text) is not None


def conversation(messages: Sequence[Turn], nonce: str) -> str:
    """A conversation between its fences."""
    return fenced("conversation", nonce, transcript(messages, nonce))


def ask_readable(
    ask_once: Callable[[Request], Flow[Reply]], request: Request, read: Callable[[str], T | None]
) -> Flow[tuple[Reply, T | None]]:
    """Ask, and once more if the reply is whole but cannot be read.

    Gives: the last reply, and what was read; None: a refusal, a truncation, or twice unreadable
    """
    reply = yield from ask_once(request)
    if _is_whole(reply) and (value := read(reply.text)) is not None:
        return reply, value
    if _is_whole(reply):
        reply = yield from ask_once(request.again())
    return reply, read(reply.text) if _is_whole(reply) else None


def _is_whole(reply: Reply) -> bool:
    return not reply.refused and not reply.truncated


def schema(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object with exactly these properties, as structured output takes it."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def structured(text: str, shape: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read a reply that must be one JSON object of this schema and nothing else; None: it is not.

    Servers that are told a schema do not all keep to it, so nothing is taken on trust: text around the object, a key given twice,
    NaN, half of a surrogate pair, a wrong type or a value that is not in the enum make the reply unreadable.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refused)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair cannot be written to a file
    except (ValueError, RecursionError):
        return None
    return value if _fits(value, shape) else None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float), "array": (list,), "object": (dict,)}


def _fits(value: Any, shape: Mapping[str, Any]) -> bool:
    if "enum" in shape:
        return isinstance(value, str) and value in shape["enum"]
    if type(value) not in _TYPES[shape["type"]]:
        return False
    if shape["type"] == "array":
        return all(_fits(item, shape["items"]) for item in value)
    if shape["type"] == "object":
        return set(value) == set(shape["properties"]) and all(
            _fits(value[key], part) for key, part in shape["properties"].items()
        )
    return True
