"""How a dataset came about, in sentences, for those who have not met the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]

# In the order data flows; a stage of another package has its line in the tables alone.
_DONE = {
    "expand": "Prompts were written by a model, after the manner of a few given ones.",
    "generate": "A model answered prompts.",
    "critique": "A model criticised the answers by written principles.",
    "revise": "A model rewrote them.",
    "label-pairs": "Models judged which of two answers is better, by written preferences.",
    "debias": "Their votes were measured for bias and became one label a pair.",
    "score": "A model rated answers by named criteria.",
}
_SOURCES = {
    ("critique", "revise"): "Constitutional AI, Bai et al. 2022, [arXiv 2212.08073](https://arxiv.org/abs/2212.08073)",
    ("label-pairs",): "RLAIF, Lee et al. 2023, [arXiv 2309.00267](https://arxiv.org/abs/2309.00267)",
}


def of(made: Sequence[Facts]) -> str:
    """A paragraph with an empty line behind it; nothing where no stage of it is known. Takes: versions, the oldest first"""
    stages = {str(facts["stage"]) for facts in made}
    done = [words for stage, words in _DONE.items() if stage in stages]
    if not done:
        return ""
    methods = [words for behind, words in _SOURCES.items() if stages.intersection(behind)]
    after = f" The method: {'; '.join(methods)}." if methods else ""
    return f"{' '.join(done)}{after} Made with cai.\n\n"
