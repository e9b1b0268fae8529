"""Few-shot exemplars: worked cases in the very form of the question and of its answer, put before the real one.

Models swap roles now and then, a critique where a revision is due; exemplars of the same form cure it (Bai et al. 2022, arXiv
2212.08073, section 3). A file holds those of one stage; the first `n` of it are used, so its order is its order of worth.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai_cli import documents, prompts
from cai_cli.documents import Document, Problem
from cai_cli.errors import Fix, Reject
from cai_cli.records import Turn, from_row
from cai_cli.shipped import shipped

SEVERITIES = ("none", "minor", "moderate", "severe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemplar:
    """One worked case. Which fields are filled depends on the stage."""

    conversation: tuple[Turn, ...]
    principle: str = ""  # its name, where the question names one
    request: str = ""  # critique, revise: what is asked for
    response: str = ""  # critique, revise: what is criticised, rewritten
    critique: str = ""  # critique: the answer; revise: what is answered
    severity: str = ""  # critique: none | minor | moderate | severe; empty: not given
    quotes: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    revision: str = ""  # revise: the answer
    criterion: str = ""  # label: what is compared by
    better: str = ""  # label
    worse: str = ""
    reasoning: str = ""
    confidence: float = 0.9  # label: that the better one is better, in [.5, 1]


_NEEDED = {
    "critique": ("conversation", "request", "response", "critique"),
    "revise": ("conversation", "request", "response", "critique", "revision"),
    "label": ("conversation", "criterion", "better", "worse"),
}
_KNOWN = {
    "critique": (*_NEEDED["critique"], "principle", "severity", "quotes", "suggestions"),
    "revise": _NEEDED["revise"],
    "label": (*_NEEDED["label"], "reasoning", "confidence"),
}


def find(name: str, stage: str, folder: Path, count: int) -> tuple[Exemplar, ...]:
    """The first `count` exemplars of a file.

    Takes: a file's path (it ends in .yaml) or a plain name, which is the file exemplars/STAGE-NAME.yaml; looked for in `folder`
    (the config's), its prompts/, ./prompts and the shipped ones, in this order
    Raises: Fix: no such file, its problems as file:line, or too few in it
    """
    kind = stage.partition("_")[0]
    wanted = (name,) if name.endswith(".yaml") else (f"exemplars/{kind}-{name}.yaml", f"{kind}-{name}.yaml")
    folders = (folder, folder / "prompts", Path("prompts"), shipped("prompts"))
    path = next((path for place in folders for file in wanted if (path := place / file).is_file()), None)
    if path is None and name.endswith(".yaml"):
        raise prompts.not_found(name, stage, folders)
    if path is None:
        files = [file for place in folders for file in place.glob(f"exemplars/{kind}-*.yaml")]
        names = sorted({file.stem.removeprefix(f"{kind}-") for file in files})
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names) or 'none'}"
        raise Fix(f"there are no exemplars '{name}' for {stage}", hint)
    found = load(path, kind)
    if len(found) < count:
        held = f"{len(found)} exemplar{'s' * (len(found) != 1)}"
        raise Fix(f"{path} holds {held}, and {count} are asked for", f"write exemplars: {len(found)}, or add some")
    return found[:count]


def load(path: Path, kind: str) -> tuple[Exemplar, ...]:
    """All exemplars of a file, checked. `kind`: critique, revise or label. Raises: Fix, with every problem as file:line"""
    document = documents.load(path)
    of_another = (f"{document.where(('stage',))}: stage must be {kind} here", f"write 'stage: {kind}', or name other exemplars")
    if document.value.get("stage") in [other for other in _NEEDED if other != kind]:
        raise Fix(*of_another)  # what else is wrong here is right there
    problems = [
        (f"{document.where((key,))}: unknown key '{key}'", "known are: stage, source, exemplars")
        for key in document.value
        if key not in ("stage", "source", "exemplars")
    ]
    if document.value.get("stage") != kind:
        problems.append(of_another)
    listed = document.value.get("exemplars")
    if not isinstance(listed, list) or not listed:
        hint = "begin each with '- conversation: ...'"
        problems.append((f"{document.where(('exemplars',))}: exemplars must be a list", hint))
        listed = []
    for n, item in enumerate(listed):
        problems += _check(document, n, item, kind)
    if problems:
        raise documents.all_at_once(problems)
    return tuple(from_row(Exemplar, item) for item in listed)


def _check(document: Document, n: int, item: Any, kind: str) -> Iterable[Problem]:
    place = document.where(("exemplars", n))
    if not isinstance(item, Mapping):
        yield f"{place}: an exemplar must be keys and values", f"give it {', '.join(_NEEDED[kind])}"
        return
    for key in item:
        if key not in _KNOWN[kind]:
            yield f"{document.where(('exemplars', n, key))}: unknown key '{key}'", f"known are: {', '.join(_KNOWN[kind])}"
    for key in _NEEDED[kind]:
        if key not in item:
            yield f"{place}: '{key}' is missing", f"add '{key}: ...'"
        elif _is_empty(item[key]):
            yield f"{document.where(('exemplars', n, key))}: '{key}' is empty", "a worked case needs it"
    if (severity := item.get("severity", "none")) not in SEVERITIES:
        shown = "empty" if severity is None else f"'{severity}'"
        where = document.where(("exemplars", n, "severity"))
        yield f"{where}: severity cannot be {shown}", f"write one of {', '.join(SEVERITIES)}"
    said = {"severity"} | {key for key in item if key not in _KNOWN[kind] or (key in _NEEDED[kind] and item[key] is None)}
    yield from _check_values(place, {key: value for key, value in item.items() if key not in said})


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, dict)) and not (value.strip() if isinstance(value, str) else value))


def _check_values(place: str, item: Mapping[str, Any]) -> Iterable[Problem]:
    """What is wrong with an exemplar whose keys are right."""
    try:
        exemplar = from_row(Exemplar, item)
    except Reject as reject:
        if reject.reason != "missing_column":
            yield f"{place}: {reject.detail}", "every value is a text, or a list where one is shown"
        return
    if exemplar.conversation and exemplar.conversation[-1].role != "user":
        yield f"{place}: the conversation must end with a user turn", "the answer to it stands in 'response', 'better', 'worse'"
    if not all(quote in exemplar.response for quote in exemplar.quotes):
        hint = "copy it character by character: a worked case with a made-up quote teaches to make them up"
        yield f"{place}: a quote does not stand in the response", hint
    if exemplar.better and exemplar.better.strip() == exemplar.worse.strip():
        yield f"{place}: 'better' and 'worse' are the same text", "a comparison of a text with itself teaches to guess"
    if not 0.5 <= exemplar.confidence <= 1:
        yield f"{place}: confidence must be from .5 to 1", "it is the probability that the better one is better"
