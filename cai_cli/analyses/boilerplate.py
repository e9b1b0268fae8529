"""Phrases and openings that return: in chosen texts against rejected ones, in revisions against first answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cai_cli.analyses import Options
from cai_cli.analyses._phrases import Phrase, Phrases, Sampled, joined, ngrams
from cai_cli.analyses._result import Analysis, Cell, Column, Section
from cai_cli.analyses._steps import answer, are, first_response, of_rows, said
from cai_cli.analyses._tally import percent
from cai_cli.analyses._texts import opener

SUMMARY = "Phrases and openings that return, in chosen texts against rejected, in revisions against first answers."
READS = ("debias", "label-pairs", "revise", "generate")
ALSO = ("revise",)  # where the rows are pairs: what revisions brought in
TAKES = ("n",)

LEAST = 3  # prompts that a phrase must turn up in
FREQUENT = 0.01  # share of prompts from which on a phrase is worth a sentence
OPENER = 12  # words of a first sentence that count
_CANDIDATES = 40  # phrases looked at for each that is shown: most overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contrast:
    """Which texts are held against which."""

    name: str
    here: str
    there: str  # empty: against nothing


PAIRS = _Contrast(name="chosen", here="chosen", there="rejected")
REVISIONS = _Contrast(name="revision", here="revisions", there="first answers")
RESPONSES = _Contrast(name="response", here="responses", there="")


class _Compared:
    """One contrast: the texts of a prompt come together, and each phrase counts once for a prompt and side."""

    def __init__(self, contrast: _Contrast, n: int) -> None:
        self.contrast, self.n = contrast, n
        self.rows = 0
        self.phrases, self.openers, self.sample = Phrases(), Phrases(), Sampled()
        self._prompt: object = None
        self._texts: tuple[set[str], set[str]] = (set(), set())

    def add(self, prompt: object, here: str, there: str) -> None:
        """Add a row's texts; rows of one prompt stand together."""
        if prompt != self._prompt:
            self.flush()
            self._prompt = prompt
        self.rows += 1
        for texts, text in zip(self._texts, (here, there), strict=True):
            texts.add(text)

    def flush(self) -> None:
        """Count the texts of the prompt that is over."""
        if not self._texts[0]:
            return
        sides = self._texts[: 2 if self.contrast.there else 1]
        found = [set().union(*(ngrams(text, self.n) for text in texts)) for texts in sides]
        for side, texts in enumerate(sides):
            self.phrases.add(side, found[side])
            self.openers.add(side, {opener(text, OPENER) for text in texts} - {""})
        self.sample.add(self._prompt, found)
        self._texts = (set(), set())


class _Gathered:
    """What is counted while rows stream by."""

    def __init__(self, n: int) -> None:
        self.rows = self.without = self.undecided = self.unchanged = 0
        self.compared = {one.name: _Compared(one, n) for one in (PAIRS, REVISIONS, RESPONSES)}

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of any shape: a pair, a chain, or a sample."""
        self.rows += 1
        name, here, there = self._texts(row)
        if name:
            self._compare(name, row, here, there)
        elif here:
            self.undecided += 1
        elif not there:
            self.without += 1

    def add_revised(self, row: Mapping[str, Any]) -> None:
        """Add a row of revise next to pairs."""
        name, here, there = self._texts(row)
        if name == REVISIONS.name:
            self._compare(name, row, here, there)

    def _compare(self, name: str, row: Mapping[str, Any], here: str, there: str) -> None:
        if name == REVISIONS.name and here == there:
            self.unchanged += 1
            return
        prompt = row.get("prompt_id") or row.get("prompt") or row.get("id") or self.rows
        self.compared[name].add(prompt, here, there)

    def _texts(self, row: Mapping[str, Any]) -> tuple[str, str, str]:
        """Which contrast a row is for, and its texts; no contrast: a pair that prefers neither text, or no text at all."""
        if (chosen := answer(row, "chosen")) and (rejected := answer(row, "rejected")):
            return PAIRS.name, chosen, rejected
        if (a := answer(row, "response_a")) and (b := answer(row, "response_b")):
            sides = {"a": (a, b), "b": (b, a)}.get(said(row, "preference"))
            return (PAIRS.name, *sides) if sides else ("", a, b)
        last, first = said(row, "response").strip(), first_response(row).strip()
        if "initial_response" in row and last and first:
            return REVISIONS.name, last, first
        return (RESPONSES.name, last, "") if last else ("", "", "")

    def done(self) -> list[_Compared]:
        """The contrasts that there are rows for."""
        for one in self.compared.values():
            one.flush()
        return [one for one in self.compared.values() if one.rows]


def analyse(
    rows: Iterable[Mapping[str, Any]], options: Options, also: Mapping[str, Iterable[Mapping[str, Any]]] | None = None
) -> Analysis:
    """Takes: pairs (chosen, rejected, else response_a, response_b, preference), chains (initial_response, response) or samples
        (response), rows of a prompt (prompt_id, else prompt) together; rows of revise by `also`; options.n, words of a phrase
    Gives: for each contrast there are texts for, NAME_phrases, NAME_distinct, NAME_openers, NAME_touched; NAME is chosen,
        revision or response. Shares are of prompts: a phrase counts once, however many texts of a prompt hold it. Of a text, its
        first 1,000 words.
    """
    found = _Gathered(options.n)
    for row in rows:
        found.add(row)
    revised = () if found.compared[REVISIONS.name].rows else (also or {}).get("revise", ())
    for row in revised:
        found.add_revised(row)
    pages = [_Page(one, options.top) for one in found.done()]
    return Analysis(
        name="boilerplate", rows=found.rows, sections=tuple(section for page in pages for section in page.sections()),
        findings=tuple(finding for page in pages for finding in page.findings()), warnings=tuple(_warnings(found, pages)),
    )  # fmt: skip


class _Page:
    """What is shown of one contrast."""

    def __init__(self, compared: _Compared, top: int) -> None:
        self.compared, self.contrast = compared, compared.contrast
        phrases = compared.phrases
        self.frequent = joined(phrases.frequent(LEAST, top * _CANDIDATES), top)
        self.distinct = joined(phrases.distinctive(LEAST, top * _CANDIDATES), top) if self.contrast.there else []
        self.openers = [(one, one.text) for one in compared.openers.frequent(LEAST, top // 2)]

    def sections(self) -> Iterator[Section]:
        here, n = self.contrast.here, self.compared.n
        against = f" against {self.contrast.there}" if self.contrast.there else ""
        parts = "Runs that overlap are put together, with the numbers of the most frequent." if n > 2 else ""
        yield from self._section("phrases", f"most frequent runs of {n} words in {here}{against}", self.frequent, parts)
        note = "Those whose log-odds are above 0 by their interval, the surest first; of very many runs, some are by chance."
        yield from self._section(
            "distinct", f"runs of {n} words that tell {here} from {self.contrast.there}", self.distinct, note
        )
        yield from self._section("openers", f"how {here} begin", self.openers, f"First sentences, or their first {OPENER} words.")
        yield from self._touched()

    def _section(self, name: str, title: str, phrases: Sequence[tuple[Phrase, str]], note: str) -> Iterator[Section]:
        if not phrases:
            return
        rows: tuple[Mapping[str, Cell], ...] = tuple(
            {"text": text, "here": one.here, "there": one.there, "log_odds": one.log_odds} for one, text in phrases
        )
        against = [
            Column(name="there", title=self.contrast.there),
            Column(name="log_odds", title="log-odds", whiskers=True, at=0),
        ]
        head = [Column(name="text", title="words"), Column(name="here", title=self.contrast.here, bar=True)]
        head += against if self.contrast.there else []
        shares = "Shares are of prompts."
        yield Section(
            name=f"{self.contrast.name}_{name}", title=title, head=tuple(head), rows=rows, note=f"{note} {shares}".strip()
        )

    def _touched(self) -> Iterator[Section]:
        sets = (("a frequent one", self.frequent), ("one that tells", self.distinct))
        rows: tuple[Mapping[str, Cell], ...] = tuple(
            {
                "what": what, "phrases": len(phrases), "here": self.compared.sample.touched(0, [one.text for one, _ in phrases]),
                "there": self.compared.sample.touched(1, [one.text for one, _ in phrases]) if self.contrast.there else None,
            }
            for what, phrases in sets
            if phrases
        )  # fmt: skip
        head = [
            Column(name="what", title="holds"),
            Column(name="phrases", title="of"),
            Column(name="here", title=self.contrast.here),
        ]
        head += [Column(name="there", title=self.contrast.there)] if self.contrast.there else []
        note = "Share of prompts with any of the phrases shown, in a sample of at most 1,000 prompts."
        if rows:
            yield Section(
                name=f"{self.contrast.name}_touched", title="how many they touch", head=tuple(head), rows=rows, note=note
            )

    def findings(self) -> Iterator[str]:
        here, there = self.contrast.here, self.contrast.there
        worth = [(one, text) for one, text in self.distinct if (one.here.value or 0) >= FREQUENT]
        if worth:
            one, text = max(worth, key=lambda found: found[0].here.value or 0)
            touched = self.compared.sample.touched(0, [one.text for one, _ in self.distinct])
            others = f"; {len(self.distinct)} such phrases touch {percent(touched.value or 0)}" if len(self.distinct) > 1 else ""
            yield (
                f'"{text}" stands in {here} of {percent(one.here.value or 0)} of the prompts, in {there} of '
                f"{percent(one.there.value or 0)}{others}. A model trained on this will repeat it: look for its wording in "
                "revision prompts and principles."
            )
        elif there and self.frequent:
            runs = f"run of {self.compared.n} words"
            yield f"No {runs} that is in {here} of {FREQUENT:.0%} of the prompts or more is clearly rarer in {there}."
        if self.openers and (share := self.openers[0][0].here.value or 0) >= 0.05:
            yield f'The most frequent beginning, "{self.openers[0][1]}", opens {here} of {percent(share)} of the prompts.'


def _warnings(found: _Gathered, pages: Sequence[_Page]) -> Iterator[str]:
    if not pages:
        yield "no row has texts to compare (chosen and rejected; response and initial_response; response)"
    elif found.without:
        yield f"{of_rows(found.without, found.rows)} no text, and {are(found.without)} left out"
    if found.undecided:
        yield f"{found.undecided:,} of {found.rows:,} pairs prefer neither response, and {are(found.undecided)} left out"
    if found.unchanged:
        of = found.unchanged + found.compared[REVISIONS.name].rows
        yield f"{found.unchanged:,} of {of:,} rows of revise changed nothing, and {are(found.unchanged)} not compared"
    for page in pages:
        if missed := max(page.compared.phrases.missed, page.compared.openers.missed):
            prompts = page.compared.phrases.prompts[0]
            yield f"counts of {page.contrast.here} are approximate: too low by at most {missed:,} of {prompts:,} prompts"
