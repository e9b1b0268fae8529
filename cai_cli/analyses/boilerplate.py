"""Phrases and openings that return: in chosen texts against rejected ones, in revisions against first answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cai_cli.analyses import Options
from cai_cli.analyses._contrast import OPENER, Compared, Contrast
from cai_cli.analyses._figures import percent
from cai_cli.analyses._pairs import said as votes_of
from cai_cli.analyses._pairs import side as label_of
from cai_cli.analyses._phrases import Phrase, joined
from cai_cli.analyses._result import Analysis, Cell, Column, Section
from cai_cli.analyses._steps import answer, are, first_response, of_rows, said

SUMMARY = "Phrases and openings that return, in chosen texts against rejected, in revisions against first answers."
READS = ("debias", "label-pairs", "revise", "generate")
ALSO = ("revise",)  # where the rows are pairs: what revisions brought in
TAKES = ("n",)

LEAST = 3  # prompts that a phrase must turn up in
FREQUENT = 0.01  # share of prompts from which on a phrase is held against the other side, and worth a sentence
_CANDIDATES = 40  # phrases looked at for each that is shown: most overlap


PAIRS = Contrast(name="chosen", here="chosen", there="rejected")
REVISIONS = Contrast(name="revision", here="revisions", there="first answers")
RESPONSES = Contrast(name="response", here="responses", there="")


class _Gathered:
    """What is counted while rows stream by."""

    def __init__(self, n: int) -> None:
        self.rows = self.without = self.undecided = self.unchanged = 0
        self.compared = {one.name: Compared(one, n) for one in (PAIRS, REVISIONS, RESPONSES)}

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
        prompt = str(row.get("prompt_id") or row.get("prompt") or row.get("id") or self.rows)  # a stranger's may be anything
        self.compared[name].add(prompt, here, there)

    def _texts(self, row: Mapping[str, Any]) -> tuple[str, str, str]:
        """Which contrast a row is for, and its texts; no contrast: a pair that prefers neither text, or no text at all."""
        if (chosen := answer(row, "chosen")) and (rejected := answer(row, "rejected")):
            return PAIRS.name, chosen, rejected
        if (a := answer(row, "response_a")) and (b := answer(row, "response_b")):
            sides = {"a": (a, b), "b": (b, a)}.get(label_of(row, votes_of(row)[0])[0])
            return (PAIRS.name, *sides) if sides else ("", a, b)
        last, first = said(row, "response").strip(), first_response(row).strip()
        if "initial_response" in row and last and first:
            return REVISIONS.name, last, first
        return (RESPONSES.name, last, "") if last else ("", "", "")

    def done(self) -> list[Compared]:
        """The contrasts that there are rows for."""
        for one in self.compared.values():
            one.flush()
        return [one for one in self.compared.values() if one.rows]


def analyse(
    rows: Iterable[Mapping[str, Any]], options: Options, also: Mapping[str, Iterable[Mapping[str, Any]]] | None = None
) -> Analysis:
    """Takes: pairs (chosen, rejected, else response_a, response_b and preference, p_a or votes), chains (initial_response,
        response) or samples (response), with prompt_id, else prompt; rows of revise by `also`; options.n, words of a phrase
    Gives: for each contrast there are texts for, NAME_phrases, NAME_distinct, NAME_openers, NAME_touched; NAME is chosen,
        revision or response. Shares are of prompts: a phrase counts once, however many texts of a prompt hold it. Of a text, its
        first 1,000 words. Rows of a prompt may stand up to 20,000,000 characters of text apart.
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
        unusable="" if pages or found.undecided or found.unchanged else _NOTHING,
    )  # fmt: skip


_NOTHING = "no row has texts to compare (chosen and rejected; response and initial_response; response)"


class _Page:
    """What is shown of one contrast."""

    def __init__(self, compared: Compared, top: int) -> None:
        self.compared, self.contrast = compared, compared.contrast
        phrases = compared.phrases
        least = max(LEAST, math.ceil(FREQUENT * phrases.prompts[0]))
        self.frequent = joined(phrases.frequent(LEAST, top * _CANDIDATES), top)
        self.distinct = joined(phrases.distinctive(least, top * _CANDIDATES), top) if self.contrast.there else []
        self.openers = [(one, one.text) for one in compared.openers.frequent(LEAST, top // 2)]

    def sections(self) -> Iterator[Section]:
        here, n = self.contrast.here, self.compared.n
        against = f" against {self.contrast.there}" if self.contrast.there else ""
        parts = "Runs that overlap are put together, with the numbers of the most frequent." if n > 2 else ""
        yield from self._section("phrases", f"most frequent runs of {n} words in {here}{against}", self.frequent, parts)
        note = (
            f"Those above 0 with a false discovery rate of 5% among all runs of {FREQUENT:.0%} of the prompts, the surest first."
        )
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
        here, there, run = self.contrast.here, self.contrast.there, f"run of {self.compared.n} words"
        if self.distinct:
            one, text = max(self.distinct, key=lambda found: found[0].here.value or 0)
            touched = self.compared.sample.touched(0, [one.text for one, _ in self.distinct])
            others = f"; {len(self.distinct)} such phrases touch {percent(touched.value or 0)}" if len(self.distinct) > 1 else ""
            yield (
                f'"{text}" stands in {here} of {percent(one.here.value or 0)} of the prompts, in {there} of '
                f"{percent(one.there.value or 0)}{others}. A model trained on this will repeat it: look for its wording in "
                "revision prompts and principles."
            )
        elif not self.frequent:
            phrases = self.compared.phrases
            least = max(LEAST, phrases.missed + 1)  # what was forgotten may have been in as many
            yield f"No {run} stands in {here} of {least:,} prompts or more, of {phrases.prompts[0]:,}."
        elif there:
            yield f"No {run} that is in {here} of {FREQUENT:.0%} of the prompts or more is surely rarer in {there}."
        if self.openers and (share := self.openers[0][0].here.value or 0) >= 0.05:
            yield f'The most frequent beginning, "{self.openers[0][1]}", opens {here} of {percent(share)} of the prompts.'


def _warnings(found: _Gathered, pages: Sequence[_Page]) -> Iterator[str]:
    if pages and found.without:
        yield f"{of_rows(found.without, found.rows)} no text, and {are(found.without)} left out"
    if found.undecided:
        yield f"{found.undecided:,} of {found.rows:,} pairs prefer neither response, and {are(found.undecided)} left out"
    if found.unchanged:
        of = found.unchanged + found.compared[REVISIONS.name].rows
        yield f"{found.unchanged:,} of {of:,} rows of revise changed nothing, and {are(found.unchanged)} not compared"
    for page in pages:
        if again := page.compared.again:
            yield f"{again:,} times rows of one prompt stood so far apart that it counts once more: sort them by prompt_id"
        if missed := max(page.compared.phrases.missed, page.compared.openers.missed):
            prompts = page.compared.phrases.prompts[0]
            yield f"counts of {page.contrast.here} are approximate: too low by at most {missed:,} of {prompts:,} prompts"
