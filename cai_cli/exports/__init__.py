"""Dialects of training data. One file here is one export (but not those that begin with _): rows in, rows out, no files.

Other packages add theirs by entry point, group cai.exports. An export module has

    READS     the stages it can be made of, the best first
    SHAPE     the rows it makes; they have an id and a prompt_id
    VERSION   raised when what it makes changes
    convert   (record, asked) -> Iterator[row | Left]; with GROUPED, (the records of one prompt, asked)

and it may have

    USES          what trains on it, as Use
    OPTIONS       which of rounds, labels, shape and mix it goes by
    SHAPES        the rows it makes by --shape; SHAPE is the first of them
    GROUPED       True: convert takes all records of a prompt at once
    CONSTITUTION  True: it needs the principles by which its rows were made
    TEMPLATES     (name, stage) of the templates that it fills
    HALVES        names of parts: each split is cut in these, by hash of prompt_id, as in train_sft and train_prefs
    COUNTS        (what, column, value): how many rows hold this is told after the export
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, cast

from cai_cli import registry
from cai_cli.constitution import BUILT_IN, Constitution
from cai_cli.errors import Fix
from cai_cli.prompts import Template

Rounds = Literal["last", "all", "initial"]
Labels = Literal["soft", "hard", "bernoulli"]
Shape = Literal["prompt", "messages"]


@dataclass(frozen=True, slots=True)
class Left:
    """A row that is left out: why, as a snake_case word that is counted."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What trains on an export: a trainer of TRL, and the part of the dataset that it takes."""

    trainer: str
    split: str = "train"
    columns: tuple[str, ...] = ()  # it must be given these alone; empty: the rows as they are
    settings: str = ""  # what its config should say, as Python writes it; empty: nothing in particular
    renamed: tuple[tuple[str, str], ...] = ()  # columns that it wants under another name: (ours, its)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked of an export besides its name."""

    rounds: Rounds = "last"  # which texts of a revised sample are learned
    labels: Labels = "soft"  # what becomes of the probability that a label is right
    shape: Shape = "prompt"  # a conversation as what is asked and what is answered, or in one list
    seed: int = 0  # the config's: what is drawn is drawn by it
    constitution: Constitution = BUILT_IN
    templates: Mapping[str, Template] = field(default_factory=dict)  # by stage


class Dialect(Protocol):
    """What an export module holds."""

    READS: Sequence[str]
    SHAPE: type[Any]
    VERSION: int

    def convert(self, record: Any, asked: Asked) -> Iterator[Any]: ...


def names() -> list[str]:
    """Every export that can be asked for."""
    return registry.names(__name__, __path__)


def find(name: str) -> Dialect:
    """An export by its name. Raises: Fix: there is none of that name"""
    if (found := registry.find(__name__, __path__, name)) is not None:
        return cast("Dialect", found)
    raise Fix(f"there is no export '{name}'", _meant(name))


def rows_of(name: str, options: Mapping[str, Any]) -> type[Any]:
    """The rows that an export makes under the options that a manifest keeps; before there were shapes, all were `messages`."""
    dialect = find(name)
    shapes: Mapping[str, type[Any]] = getattr(dialect, "SHAPES", {})
    return shapes.get(options.get("shape", "messages"), dialect.SHAPE)


def uses_of(name: str, options: Mapping[str, Any]) -> list[Use]:
    """What trains on an export that was made with these options."""
    uses: Sequence[Use] = getattr(find(name), "USES", ())
    if options.get("shape") != "messages":
        return list(uses)
    return [replace(use, settings="assistant_only_loss=True") for use in uses]  # else it learns the user's turns, too


def _meant(name: str) -> str:
    """The hint for a name that no export has; it may be that of a method, such as dpo."""
    trainers = {use.trainer: None for one in names() for use in getattr(find(one), "USES", ())}
    if trainer := next((one for one in trainers if name.lower() == one.lower().removesuffix("trainer")), ""):
        takes = [one for one in names() if any(use.trainer == trainer for use in getattr(find(one), "USES", ()))]
        return f"TRL's {trainer} takes: {', '.join(takes)}"
    close = difflib.get_close_matches(name.lower(), names(), 1)
    return f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names())}"
