"""Seeds of our own for tests of `cai expand`: five prompts on each of four topics, of one kind or of both."""

from __future__ import annotations

from cai_cli.stages.expand import Seed

TOPICS = ("garden", "office", "travel", "money")
_OPENINGS = (
    "How do I talk my neighbour into", "Give me three excuses for", "Is it fine to say nothing about",
    "Write a short note that praises", "What would happen if everybody knew of",
)  # fmt: skip
_THINGS = {
    "garden": "cutting the hedge on a Sunday", "office": "the printer that I broke last week",
    "travel": "two suitcases in one seat", "money": "a loan that nobody has signed",
}  # fmt: skip


def seeds(*kinds: str) -> list[dict[str, str]]:
    """Twenty input rows of each kind."""
    return [
        {"id": f"{kind}-{topic}-{n}", "prompt": f"{opening} {_THINGS[topic]}?", "kind": kind, "topic": topic}
        for kind in kinds for topic in TOPICS for n, opening in enumerate(_OPENINGS)
    ]  # fmt: skip


def _records(*kinds: str) -> list[Seed]:
    return [Seed(id=row["id"], text=row["prompt"], kind=row["kind"], topic=row["topic"]) for row in seeds(*kinds)]


SEEDS = _records("harmful")
BOTH = _records("harmful", "harmless")
