"""One piece of advice, and what all of them are given to look at."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cai_cli.config import Config
from cai_cli.documents import dotted
from cai_cli.flow import Model
from cai_cli.prices import price_of
from cai_cli.prompts import Template
from cai_cli.validation import KeyPath

if TYPE_CHECKING:
    from cai_cli.engine.advice.asked import Asked
    from cai_cli.engine.advice.inputs import Seen
    from cai_cli.engine.plan import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """`what` the key at `path` does, `why` that matters, with the figure and its source, and what to `write` instead."""

    path: KeyPath
    what: str
    why: str
    write: str

    def line(self) -> str:
        """All of it as one sentence, without its place."""
        about = f"{dotted(self.path)}: " if self.path else ""
        return f"{about}{self.what}: {self.why}; {self.write}" if self.why else f"{about}{self.what}; {self.write}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A config, its stages as a run would build them, what was read of its input, and what they would ask about the first rows.
    `today`: for retirements, and the age of price lists"""

    config: Config
    steps: Mapping[str, Step]
    seen: Seen | None
    asked: Asked
    today: datetime.date

    def settings(self, name: str) -> Any:
        """A stage's section; None where the config has none."""
        step = self.steps.get(name)
        return step.settings if step else None

    @property
    def models(self) -> list[Model]:
        """Every model that is asked, each once."""
        found = [model for step in self.steps.values() for model in step.models]
        return [model for n, model in enumerate(found) if model not in found[:n]]

    @property
    def paid(self) -> bool:
        """Whether anything costs money. On the built-in model one only tries things out, and no dataset comes of it."""
        return any(is_paid(model) for model in self.models)

    def model_path(self, stage: str, key: str) -> KeyPath:
        """Where a key of a stage's model is set: in its own section, else at the top."""
        section = stage.replace("-", "_")
        own = getattr(self.settings(stage), "model", None)
        return (section, "model", key) if own is not None and key in own.model_fields_set else ("model", key)


def is_paid(model: Model) -> bool:
    """Whether a reply costs something, or nobody knows what it costs."""
    price = price_of(model)
    return model.provider != "simulated" and (price is None or bool(price.input or price.output))


def template_path(template: Template) -> KeyPath:
    """Where a stage's template is named. A template may call label_pairs by its first word."""
    return ("label_pairs" if template.stage.startswith("label") else template.stage, "template")
