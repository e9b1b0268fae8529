"""Advice on instructions that stand where models attend least: in the middle of a long text that goes with every call."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cai_cli.engine.advice.look import Advice, Look, template_path
from cai_cli.reports.quantities import counted
from cai_cli.validation import KeyPath

LONG = 1_500  # tokens; shorter texts have no middle to speak of
_QUOTED = 60  # characters of a sentence, enough to find it by
_CRITICAL = re.compile(
    r"\b(?:must(?: not)?|never|always|only|do not|don['\u2019]t|under no circumstances|critical(?:ly)?|required|forbidden"
    r"|IMPORTANT)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^\s.!?\n][^.!?\n]*[.!?]?")
_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_WHY = (
    "models attend worst to the middle: one answered 76% of questions right from what stood first, 63% from what stood last, "
    "54% from the middle (Liu et al. 2023, arXiv 2307.03172)"
)


def advice(look: Look) -> Iterator[Advice]:
    for n, system in enumerate(getattr(look.settings("generate"), "systems", ())):
        yield from _in(system or "", ("generate", "systems", n), "a system prompt")
    for step in look.steps.values():
        for template in step.templates:
            yield from _in(_TAG.sub("", template.body), template_path(template), f"the template {template.name}")


def _in(text: str, path: KeyPath, of_what: str) -> Iterator[Advice]:
    length = len(text) // 4
    if length <= LONG or not (found := buried(text)):
        return
    line, sentence = found[0]
    first = f"'{sentence[:_QUOTED].rstrip()}{'...' * (len(sentence) > _QUOTED)}' in line {line} of it"
    rest = f", and {counted(len(found) - 1, 'other')}" if len(found) > 1 else ""
    what = f"in the middle third of {of_what} of about {length:,} tokens stands {first}{rest}"
    yield Advice(path=path, what=what, why=_WHY, write="put what must be kept at the beginning, or say it again at the end")


def buried(text: str) -> list[tuple[int, str]]:
    """The sentences in the middle third that say what must be or must not, each with its line; but those said outside it, too."""
    edges = len(text) / 3, 2 * len(text) / 3
    outside = " ".join((text[: round(edges[0])] + text[round(edges[1]) :]).split()).casefold()
    found = []
    for match in _SENTENCE.finditer(text):
        said = " ".join(match[0].split())
        is_inside = edges[0] <= match.start() < edges[1]
        if is_inside and _CRITICAL.search(said) and said.rstrip(".!? ").casefold() not in outside:
            found.append((text.count("\n", 0, match.start()) + 1, said))
    return found
