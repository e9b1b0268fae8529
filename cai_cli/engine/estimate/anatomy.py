"""What the tokens of a question are: system prompt, constitution, exemplars, template, data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from cai_cli import constitution as constitutions
from cai_cli.constitution import Constitution
from cai_cli.engine.plan import Step
from cai_cli.flow import Request

PARTS = ("system", "constitution", "exemplars", "template", "data")
_FENCED = re.compile(r"<([a-z][\w-]*)-([0-9a-f]{8})>\n(.*?)\n</\1-\2>", re.DOTALL)
_CRITERION = "criterion"  # what scores go by stands in a fence, and is no data


class Anatomy:
    """Takes questions apart. The texts of the constitution are looked for in them, the longest first."""

    def __init__(self, constitution: Iterable[str]) -> None:
        self._texts = sorted({text for text in constitution if text.strip()}, key=lambda text: (-len(text), text))

    def characters(self, request: Request) -> tuple[int, ...]:
        """How many characters of a request are what, in the order of PARTS.

        The last turn of the user is the question. What stands in it between fences is data, and so are turns behind it; what
        stands there of the constitution's own texts is constitution, all else template, the schema of the reply too. Turns before
        it are exemplars. A question without fences is the prompt itself, and all its turns are data.
        """
        turns = [turn.content for turn in request.messages]
        schema = len(json.dumps(request.schema)) if request.schema else 0
        at = max((n for n, turn in enumerate(request.messages) if turn.role == "user"), default=-1)
        whole = sum(map(len, turns))
        if at < 0 or not (found := list(_FENCED.finditer(turns[at]))):
            return len(request.system), 0, 0, schema, whole
        before, behind = (sum(map(len, some)) for some in (turns[:at], turns[at + 1 :]))
        held = sum(len(one[3]) for one in found if one[1] == _CRITERION)
        data = sum(len(one[3]) for one in found) - held + behind
        held += self._held(_FENCED.sub("\0", turns[at]))
        return len(request.system), held, before, whole - before - data - held + schema, data

    def _held(self, question: str) -> int:
        """How many characters of a question are the constitution's own words."""
        whole = 0
        for text in self._texts:
            if text in question:
                whole += len(text) * question.count(text)
                question = question.replace(text, "\0")
        return whole


def anatomy_of(steps: Sequence[Step]) -> Anatomy:
    """For the questions of these steps."""
    known = [step.constitution or constitutions.BUILT_IN for step in steps]
    return Anatomy(text for one in known for text in _texts(one))


def _texts(constitution: Constitution) -> Iterable[str]:
    for principle in (*constitution.principles, constitutions.HHH):
        yield from (principle.description, principle.critique_prompt, principle.revision_prompt, *principle.examples)
    yield from (criterion.text for criterion in constitution.preferences)
