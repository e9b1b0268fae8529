"""What replies add up to by the model that gave them, so that a dataset can say later who wrote it, and at which price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Asked = tuple[str, str, str]  # provider, the name that was asked for, the model that says it answered


@dataclass(slots=True)
class Used:
    """Replies and tokens by model. It depends on the replies alone: not on when they were bought, nor in which order."""

    _by: dict[Asked, list[int]] = field(default_factory=dict)  # replies, tokens in, tokens out, tokens of the longest prompt

    def add(self, asked: Asked, replies: int, tokens_in: int, tokens_out: int, longest: int) -> None:
        """Count replies of one model. Takes: `longest`: the tokens of the longest prompt among them"""
        one = self._by.setdefault(asked, [0, 0, 0, 0])
        one[0] += replies
        one[1] += tokens_in
        one[2] += tokens_out
        one[3] = max(one[3], longest)

    def merge(self, other: Used) -> None:
        """Add what another one counted."""
        for asked, (replies, tokens_in, tokens_out, longest) in other._by.items():
            self.add(asked, replies, tokens_in, tokens_out, longest)

    @classmethod
    def of(cls, *lists: Iterable[Mapping[str, Any]]) -> Used:
        """What several `rows()` add up to."""
        whole = cls()
        for rows in lists:
            whole._add_rows(rows)
        return whole

    def _add_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            asked, tokens = (row["provider"], row["name"], row["answered"]), row["tokens"]
            self.add(asked, row["replies"], tokens["in"], tokens["out"], tokens["longest_in"])

    def rows(self) -> list[dict[str, Any]]:
        """As manifests list it, sorted: provider, name, answered, replies, tokens {in, out, longest_in}."""
        return [
            {
                "provider": provider, "name": name, "answered": answered, "replies": replies,
                "tokens": {"in": tokens_in, "out": tokens_out, "longest_in": longest},
            }
            for (provider, name, answered), (replies, tokens_in, tokens_out, longest) in sorted(self._by.items())
        ]  # fmt: skip
