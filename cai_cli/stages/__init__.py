"""Row-wise stages. One file here is one stage; other packages add theirs by entry point (group cai.stages).

A stage module has
    Settings   its section of the config
    VERSION    raised when what it makes changes
    SHAPE      the rows it makes
    READS      the stages whose rows it takes, the one it takes them from first of all at the front ("prompts": the input's
               conversations, "pairs": the input's pairs). Empty: no part of a run, it has a verb of its own.
    build      (Parts) -> the stage: a callable that turns a row into a flow, which returns a row or a list of rows
and may have
    FEEDS      of another package's: the stages that are to take its rows before all others
    AGAIN      the stage whose rows it takes before those of READS where that ran last: the loop of critique and revision
The callable may have
    gather     (rows) -> (rows, left): what it works on, made of the rows of one prompt, and what is left out, by reason
    reads      what READS says, where the settings decide it
    takes      the record it reads rows as, where `-i` gives them; without it a Sample, or a Chain where there are rounds
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from importlib.metadata import entry_points
from types import ModuleType


@functools.cache
def _own() -> tuple[str, ...]:
    return tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


@functools.cache
def added() -> dict[str, ModuleType]:
    """The modules of stages that other packages add, by name."""
    return {point.name: point.load() for point in entry_points(group="cai.stages") if point.name not in _own()}


@functools.cache
def names() -> tuple[str, ...]:
    """Every stage by its name, which is also the name of its section. None of those here is imported for that."""
    return (*added(), *_own())


def module(name: str) -> ModuleType:
    """A stage's module."""
    return importlib.import_module(f"{__name__}.{name}") if name in _own() else added()[name]


def modules() -> dict[str, ModuleType]:
    """Every stage's module by its name."""
    return {name: module(name) for name in names()}
