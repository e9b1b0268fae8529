"""One structured reply about several things, each under its name: a call where there would be one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cai_cli import prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """What such a reply looks like: {part: [{key: one of the names, ...properties}, ...]}, an entry for each name."""

    part: str  # the list's key, as scores
    key: str  # that of the name in an entry, as criterion
    names: Sequence[str]  # each once
    properties: Mapping[str, Mapping[str, Any]]  # JSON schemas of what is said of each

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema that is sent. How many entries there are stands in no schema that every server takes."""
        entry = prompts.schema(**{self.key: {"type": "string", "enum": list(self.names)}}, **self.properties)
        return prompts.schema(**{self.part: {"type": "array", "items": entry}})

    def read(self, text: str) -> list[dict[str, Any]] | None:
        """The entries in the order of the names, whatever order they came in; None: one is missing or there twice, or the reply
        is not what the schema says."""
        value = prompts.structured(text, self.schema)
        entries = {entry[self.key]: entry for entry in value[self.part]} if value else {}
        if value is None or len(value[self.part]) != len(self.names) or len(entries) != len(self.names):
            return None
        return [entries[name] for name in self.names]
