"""One thing that was looked at, and how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cai_cli.errors import Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`what` was looked at, `detail` is how it stands, `hint` what to do, `facts` the same for programs."""

    mark: Literal["ok", "warn", "fail"]
    what: str
    detail: str
    hint: str = ""
    code: Exit = Exit.OK  # what a run would end with, where this fails
    facts: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As --json tells it."""
        own = {"mark": self.mark, "what": self.what, "detail": self.detail, "hint": self.hint}
        return {**own, "exit": int(self.code), **self.facts}


def ok(what: str, detail: str, **facts: Any) -> Finding:
    return Finding(mark="ok", what=what, detail=detail, facts=facts)


def warn(what: str, detail: str, hint: str, **facts: Any) -> Finding:
    return Finding(mark="warn", what=what, detail=detail, hint=hint, facts=facts)


def fail(what: str, detail: str, hint: str, code: Exit, **facts: Any) -> Finding:
    return Finding(mark="fail", what=what, detail=detail, hint=hint, code=code, facts=facts)
