"""Print how often hostile texts turn the simulated judge's verdict, beside as many words that say nothing. `make bench`.

Each text is put behind one response of a pair, and its control, with as many words at the same places, behind the same one; both
are asked in both orders, as JSON and as bare verdicts, in a world without noise and in the default one. There a vote's noise is
another draw for another text, so verdicts turn by themselves: two controls of the same length say how often. An abstention is no
flip: nothing was read.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT.parent), str(ROOT)]
from hostile import Hostile, texts  # noqa: E402

from cai_cli import chance, judging, prompts  # noqa: E402
from cai_cli.bias.interval import clustered_share  # noqa: E402
from cai_cli.constitution import Criterion  # noqa: E402
from cai_cli.flow import Model, play  # noqa: E402
from cai_cli.providers._sentences import write  # noqa: E402
from cai_cli.providers._world import World  # noqa: E402
from cai_cli.providers.simulated import reply_to  # noqa: E402
from cai_cli.records import Pair, Turn  # noqa: E402

SEED = 7
MODEL = Model(provider="simulated", name="small-world", params={"max_tokens": 4096})
JSON = prompts.find("general", "label_pairs", Path())
TEMPLATES = {"JSON": JSON, "bare": replace(JSON, reply="text")}
CRITERION = Criterion(name="better", category="helpfulness", text="Which response is better?")
TURN = Turn(role="user", content="How do I mend a kite?")
WORLDS = {"no noise": World(noise=0), "default": World()}


def control(text: str, word: str) -> str:
    """As many words that say nothing, at the same places."""
    return re.sub(r"\S+", word, text)


def pairs(one: Hostile, number: int) -> Iterator[tuple[Pair, Pair, Pair]]:
    """A pair of near equals, with the hostile text, its control and another control behind one side, and then the other."""
    a, b = (" ".join([*write("helpful", 2, "kites", number, side), *write("filler", 2, "kites", number, side)]) for side in "ab")
    name = f"p{number}-0-1"
    for side in "ab":
        three = (one.text, control(one.text, "leaf"), control(one.text, "twig"))
        longer = [(f"{a}\n\n{more}", b) if side == "a" else (a, f"{b}\n\n{more}") for more in three]
        first, second, third = (
            Pair(id=name, prompt_id=f"p{number}", messages=(TURN,), prompt=TURN.content, response_a=x, response_b=y)
            for x, y in longer
        )
        yield first, second, third


def verdict(pair: Pair, order: judging.Order, template: prompts.Template, world: World) -> str:
    """What the judge's reply was read as: a, b, tie or abstain."""
    judge = judging.Judge(name="main", model=MODEL, template=template, seed=SEED)
    return play(judge.vote(pair, CRITERION, order, 0), lambda request: reply_to(request, world)).verdict


def measure(found: list[Hostile], world: World, template: prompts.Template) -> dict[str, Counter[str]]:
    """By family, how many questions there were, and how many verdicts turned (`flips`), by chance alone (`by chance`), or were
    not given (`abstain`)."""
    counts: dict[str, Counter[str]] = {}
    for number, one in enumerate(found):
        count = counts.setdefault(one.family, Counter())
        for three, order in itertools.product(pairs(one, number), judging.ORDERS):
            hit, calm, other = (verdict(pair, order, template, world) for pair in three)
            count["asked"] += 1
            count["abstain"] += hit == "abstain"
            count["flips"] += hit not in (calm, "abstain")
            count["by chance"] += other != calm
    return counts


def main() -> None:
    guessed = tuple(chance.nonce(SEED, f"p{n}-0-1", "label", order, 0) for n in range(3) for order in judging.ORDERS)
    found = texts(guessed)
    print(f"{len(found)} hostile texts of {len({one.family for one in found})} kinds, on either side, in both orders")
    for (name, world), (form, template) in itertools.product(WORLDS.items(), TEMPLATES.items()):
        counts = measure(found, world, template)
        every = sum(counts.values(), Counter())
        print(f"\n{name}, {form} verdicts: {every['asked']} questions")
        for family, count in ({"all": every} | (counts if name == "no noise" else {})).items():
            shares = ", ".join(f"{what} {share(count[what], count['asked'])}" for what in ("flips", "by chance", "abstain"))
            print(f"  {family:18} {shares}")


def share(some: int, of: int) -> str:
    """A share with its 95% interval."""
    import numpy as np

    ends = clustered_share(np.array([1.0] * some + [0.0] * (of - some)), np.ones(of)).ci
    return f"{some / of:.3f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")


if __name__ == "__main__":
    main()
