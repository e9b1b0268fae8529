"""What the simulated model means to say, before it is put into the form that was asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cai_cli.providers._schema import Known


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer in prose, and the same by the names that schemas give its parts.

    `decides`: the part that the question is about (verdict, severity, score, prompts); empty: the prose itself.
    `odds`: the probability of each word that could have stood there, where the model knows them.
    """

    prose: str
    known: Known = field(default_factory=dict)
    decides: str = ""
    odds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The word that an answer decided on: where it stands in the text, and the probability of each that could have."""

    at: int
    word: str
    odds: Mapping[str, float]  # sums to 1

    @property
    def end(self) -> int:
        return self.at + len(self.word)


def choice_in_prose(text: str, said: Said) -> Choice | None:
    """The choice whose word ends the text; None: no such."""
    word = next((word for word in said.odds if text.endswith(f": {word}")), None)
    return None if word is None else Choice(at=len(text) - len(word), word=word, odds=said.odds)


def choice_in_json(text: str, values: Mapping[str, Any], said: Said, allowed: list[Any] | None) -> Choice | None:
    """The choice in a JSON object; None: what stands there is no word of the odds.

    `allowed`: the schema's enum there, if it has one: what it does not hold could not have been said.
    """
    value = values.get(said.decides)
    words = said.odds.keys() if allowed is None else {str(one) for one in allowed} & said.odds.keys()
    total = math.fsum(said.odds[word] for word in words)
    if str(value) not in words or not total:
        return None
    # Inside a text this would have backslashes, so it is the key.
    name = f"{json.dumps(said.decides)}: "
    at = text.index(name) + len(name) + isinstance(value, str)
    return Choice(at=at, word=str(value), odds={word: said.odds[word] / total for word in said.odds if word in words})
