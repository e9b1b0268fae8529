"""Row-wise stages. One file here is one stage; other packages add theirs by entry point (group cai.stages).

A stage module has `Settings` (its section of the config), `VERSION` (raised when what it makes changes), `SHAPE` (the rows
it makes) and one class whose instances turn a row into a flow.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from importlib.metadata import entry_points
from types import ModuleType


@functools.cache
def modules() -> dict[str, ModuleType]:
    """Every stage's module by its name, which is also the name of its section."""
    own = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    added = {point.name: point.load() for point in entry_points(group="cai.stages")}
    return added | {name: importlib.import_module(f"{__name__}.{name}") for name in own}
