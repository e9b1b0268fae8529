"""The rounds of a chain with the text that each began with, and the words of the principles that it was held to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cai_cli.constitution import Constitution, Principle
from cai_cli.exports import Left
from cai_cli.records import Chain, Critique, Round


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A round, and the text that was criticised in it."""

    round: Round
    before: str

    @property
    def revises(self) -> bool:
        """Whether another text came of it, and was taken."""
        return bool(self.round.accepted and self.round.revision.strip()) and self.round.revision.strip() != self.before.strip()


def steps(chain: Chain) -> Iterator[Step]:
    """Every round with the text that it began with: the first response, or the last revision that was accepted before."""
    text = chain.initial_response
    for one in chain.rounds:
        yield Step(round=one, before=text)
        text = one.revision if one.accepted and one.revision else text


def answered(one: Round, constitution: Constitution) -> list[Critique]:
    """The critiques that a revision had to answer: those that asked for one, or all where none did.

    The one whose principle goes first where they conflict stands at the front.
    """
    asking = [critique for critique in one.critiques if critique.needs_revision] or one.critiques
    return sorted(asking, key=lambda critique: constitution.rank(critique.principle))


def principles(critiques: Sequence[Critique], constitution: Constitution) -> list[Principle] | Left:
    """The principles of critiques, in their order. Leaves out: unknown_principle (the constitution has none of that name)"""
    found = [constitution.principle(critique.principle) for critique in critiques]
    known = [principle for principle in found if principle is not None]
    return known if len(known) == len(found) else Left("unknown_principle")
