"""An expansion as it grows: which asks come next, what is kept of their replies, how varied the whole is. Pure: no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from cai_cli.engine.drive import Usage
from cai_cli.engine.sinks import Done
from cai_cli.errors import Reject
from cai_cli.records import Expanded, Rejected
from cai_cli.stages import expand
from cai_cli.stages.expand import Ask, Drafts, Seed, Settings
from cai_cli.tables import _novelty as novelty

NAME = "expand"
_DEFINITIONS = {
    "similarity": "mean over the prompts of ROUGE-L, over words, to the nearest seed or prompt before it, the measure of the "
    "filter in Wang et al. 2023, arXiv 2212.10560; lower is more varied",
    "distinct_2": "different pairs of neighbouring words / all pairs, after Li et al. 2016, arXiv 1510.03055, who divide by "
    "words; higher is more varied, and it falls as a set grows",
    "came_in": "of the manifest: rows, drafts that were left out (filtered), and what was rejected: asks that brought no draft, "
    "each as one, and seeds that could not be read",
}


class Expansion:
    """What has been asked and kept so far.

    Takes: seeds, the texts that nothing may be similar to, the settings, the config's seed
    Raises: Fix (exit 65): a kind of the mix without a seed
    """

    def __init__(self, seeds: Sequence[Seed], against: Iterable[str], settings: Settings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.strata = expand.strata_of(seeds, settings, settings.count)
        self.asked = [0] * len(self.strata)
        self.drafts = [0] * len(self.strata)
        self.rows: list[Expanded] = []
        self.rejects: list[Rejected] = []
        self.usage = Usage()
        self._filtered = [Counter[str]() for _ in self.strata]
        self._of: list[list[Expanded]] = [[] for _ in self.strata]  # the rows of each stratum
        wanted, texts = [one.wanted for one in self.strata], ((one.id, one.text) for one in seeds)
        self._selection = novelty.Selection(texts, against, wanted, settings.similarity, settings.max_chars)

    @property
    def filtered(self) -> Counter[str]:
        """Drafts that were left out, by reason."""
        return sum(self._filtered, Counter[str]())

    def next_wave(self) -> list[tuple[int, Ask]]:
        """The next asks, each with its stratum's place; none: it is over. A model that gave nothing at first is not asked on."""
        if any(self.asked) and not any(self.drafts):
            return []
        return expand.next_wave(self.strata, self.asked, self._selection.kept, self.settings, self.seed)

    def take(self, wave: Sequence[tuple[int, Ask]], done: Iterable[Done]) -> None:
        """Sort what a whole wave brought: the first prompt of every stratum, then the second: any beginning is balanced."""
        found: list[tuple[tuple[int, int, int], Drafts, str]] = []
        before = list(self.asked)
        for (at, ask), (made, usage) in zip(wave, done, strict=True):
            self.asked[at] += 1
            self.rejects += made[NAME].rejects
            for drafts in made[NAME].rows:
                found += [((ask.k - before[at], n, at), drafts, text.strip()) for n, text in enumerate(drafts.texts)]
            _add(self.usage, usage)
        self._sort(sorted(found, key=lambda one: one[0]))

    def _sort(self, found: Sequence[tuple[tuple[int, int, int], Drafts, str]]) -> None:
        outcomes = self._selection.sort([(at, text) for (_, _, at), _, text in found])
        for ((_, _, at), drafts, text), outcome in zip(found, outcomes, strict=True):
            self.drafts[at] += 1
            if isinstance(outcome, novelty.Filtered):
                self._filtered[at][outcome.reason] += 1
            else:
                self._of[at].append(_row(drafts, text, outcome))
                self.rows.append(self._of[at][-1])

    def diversity(self) -> dict[str, Any]:
        """How varied the prompts are, in all and by stratum, as plain JSON values; a figure of nothing is null."""
        strata = [
            {"kind": one.kind, "topic": one.topic, "wanted": one.wanted, "asks": self.asked[n], "drafts": self.drafts[n],
             "filtered": dict(sorted(self._filtered[n].items())), **_figures(self._of[n])}
            for n, one in enumerate(self.strata)
        ]  # fmt: skip
        return {"wanted": self.settings.count, **_figures(self.rows), "strata": strata, "definitions": _DEFINITIONS}


def _row(drafts: Drafts, text: str, new: novelty.New) -> Expanded:
    return Expanded(
        id=new.id, prompt=text, kind=drafts.ask.kind, topic=drafts.ask.topic, seeds=drafts.ask.examples, nearest=new.nearest,
        similarity=new.similarity, model=drafts.model,
    )  # fmt: skip


def _figures(rows: Sequence[Expanded]) -> dict[str, Any]:
    similarity = novelty.mean([row.similarity or 0.0 for row in rows])
    distinct = novelty.distinct_2(row.prompt for row in rows)
    figures: Mapping[str, float | None] = {"similarity": similarity, "distinct_2": distinct}
    return {"prompts": len(rows), **{name: None if one is None else round(one, 4) for name, one in figures.items()}}


def _add(total: Usage, more: Usage) -> None:
    total.replies.update(more.replies)
    total.tokens_in.update(more.tokens_in)
    total.tokens_out.update(more.tokens_out)


def rejected(ask: Ask, why: Reject) -> Rejected:
    """An ask that brought nothing, with what was to be asked."""
    row = orjson.dumps({"kind": ask.kind, "topic": ask.topic, "seeds": ask.examples}).decode()
    return Rejected(id=ask.id, prompt_id=ask.id, stage=NAME, reason=why.reason, detail=why.detail, row=row)
