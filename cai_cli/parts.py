"""What a stage is built from: its settings, and the models, templates and principles that it asks for by name.

What a stage takes here is what its rows depend on, so it is also what its fingerprint is made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cai_cli import exemplars, prompts
from cai_cli.constitution import Constitution
from cai_cli.exemplars import Exemplar
from cai_cli.flow import Model
from cai_cli.prompts import Template
from cai_cli.settings import ModelSection, Section

if TYPE_CHECKING:
    from cai_cli.price_lists import PriceList

S = TypeVar("S", bound=Section)


@dataclass(kw_only=True)
class Parts:
    """Hands a stage its parts, and remembers which ones it took."""

    settings: Any  # the stage's section
    seed: int
    draw_offset: int
    default: ModelSection  # the top-level model
    folder: Path  # the config's
    find_constitution: Callable[[bool], Constitution]  # takes whether it is needed; else the built-in one does. Raises: Fix
    sections: tuple[Section, ...] = ()  # of all stages
    off: frozenset[str] = frozenset()  # stages that the config switches off by name
    prices: PriceList | None = None  # the config's own
    models: list[Model] = field(default_factory=list)
    templates: list[Template] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)  # fingerprints of exemplars
    others: list[Section] = field(default_factory=list)  # sections of other stages
    constitution: Constitution | None = None

    def model(self, *own: ModelSection | None) -> Model:
        """Who answers: the stage's model, with the keys of further sections over it."""
        return self.default_model(getattr(self.settings, "model", None), *own)

    def default_model(self, *own: ModelSection | None) -> Model:
        """Who answers where the stage's own model does not count: the top-level one, with further sections' keys over it."""
        section = self.default
        for over in own:
            section = over.over(section) if over is not None else section
        self.models.append(section.model(self.prices))
        return self.models[-1]

    def template(self, name: str, stage: str) -> Template:
        """A template by name. Raises: Fix"""
        template = prompts.find(name, stage, self.folder)
        self.templates.append(template)
        return template

    def exemplars(self, name: str, stage: str, count: int) -> tuple[Exemplar, ...]:
        """The first `count` exemplars of a file; none of it is read for 0. Raises: Fix: no such file, too few in it"""
        if not count:
            return ()
        chosen = exemplars.find(name, stage, self.folder, count)
        self.examples.append(hashlib.sha256(repr(chosen).encode()).hexdigest())
        return chosen

    def principles(self, needed: bool = True) -> Constitution:
        """The config's constitution. `needed`: without one there is nothing to ask; else the built-in one does. Raises: Fix"""
        self.constitution = self.find_constitution(needed)
        return self.constitution

    def section(self, kind: type[S]) -> S:
        """Another stage's section; its defaults where the config has none."""
        if isinstance(self.settings, kind):
            return self.settings
        self.others.append(next((section for section in self.sections if isinstance(section, kind)), None) or kind())
        return self.others[-1]  # type: ignore[return-value]  # of that kind, as was just seen to
