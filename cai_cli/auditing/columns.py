"""What is needed of every pair of a frame: a few bytes each, no text. Pairs that people labelled are found in it by their id."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

from cai_cli import chance
from cai_cli.auditing.drawing import Judged, content_of, reasons

REVISED, INITIAL = "revised", "initial"


@dataclass(slots=True)
class Columns:
    """Columns that grow while pairs stream by. A sign is +1 where it is a, -1 where it is b, 0 where it is neither."""

    wanted: Mapping[str, str]  # the pairs whose place is kept, by id: a hash of their responses
    place: dict[str, int] = field(default_factory=dict)  # row by id, of those
    names: dict[str, int] = field(default_factory=dict)  # comparisons by number
    prompt: array[float] = field(default_factory=lambda: array("d"))  # a key per prompt, uniform in [0, 1)
    p_a: array[float] = field(default_factory=lambda: array("d"))
    kept: array[int] = field(default_factory=lambda: array("b"))  # 1: debias kept it
    longer: array[int] = field(default_factory=lambda: array("b"))  # sign: which response has more characters
    own: array[int] = field(default_factory=lambda: array("b"))  # sign: which one alone was written by a model that judged
    conflict: array[int] = field(default_factory=lambda: array("b"))  # 1: the labelers, or the orders, disagree
    harmful: array[int] = field(default_factory=lambda: array("b"))  # 1: the prompt is marked so
    comparison: array[int] = field(default_factory=lambda: array("i"))  # number of its comparison, -1: none
    side: array[int] = field(default_factory=lambda: array("b"))  # sign: which response is of the first system named

    def add(self, judged: Judged) -> None:
        """One more pair."""
        pair, found = judged.pair, reasons(judged)
        if pair.id in self.wanted and self.wanted[pair.id] == content_of(pair.response_a, pair.response_b):
            self.place[pair.id] = len(self.prompt)
        length, systems = len(pair.response_a) - len(pair.response_b), compared(judged)
        self.prompt.append(chance.unit(pair.prompt_id))
        self.p_a.append(judged.p_a)
        self.kept.append(judged.kept)
        self.longer.append((length > 0) - (length < 0))
        self.own.append(own_side(judged))
        self.conflict.append(int(found["conflict"]))
        self.harmful.append(int(found["harmful"]))
        self.comparison.append(-1 if systems is None else self.names.setdefault(systems[0], len(self.names)))
        self.side.append(0 if systems is None else systems[1])


def compared(judged: Judged) -> tuple[str, int] | None:
    """What is set against what in a pair: `x over y`, and the sign of x; None: two responses of one kind.

    A revision against a first response; else one model against another one, in the order of their names.
    """
    pair = judged.pair
    states = [source.rpartition(":")[2] for source in (pair.source_a, pair.source_b)]
    if sorted(states) == [INITIAL, REVISED]:
        return f"{REVISED} over {INITIAL}", 1 if states[0] == REVISED else -1
    models = pair.model_a, pair.model_b
    if not all(models) or models[0] == models[1]:
        return None
    first, second = sorted(models)
    return f"{first} over {second}", 1 if models[0] == first else -1


def own_side(judged: Judged) -> int:
    """The sign of the response that a model wrote which judged the pair, where it is not both."""
    judges = {vote.model for vote in judged.pair.votes if vote.model}
    return int(judged.pair.model_a in judges) - int(judged.pair.model_b in judges)
