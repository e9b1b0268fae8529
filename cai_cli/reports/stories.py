"""Rows as a person reads them: a sample round by round, a pair vote by vote, a reject with its reason.

Every text of a model, a file or a user goes through `visible` and into a Text: nothing in it is markup, nothing moves the cursor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cai_cli.records import Chain, Critique, Expanded, Pair, Preference, Rejected, Round, Sample, Score, Scored, Turn, Vote
from cai_cli.reports.quantities import reasons
from cai_cli.reports.tabular import tabular
from cai_cli.reports.word_diff import side_by_side, word_diff
from cai_cli.visible import on_one_line, visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    Story = Iterator[RenderableType]

INDENT = 4  # columns
PROSE = 100  # columns of text, at most
WIDE = 160  # columns from which a revision stands beside what it revises


def heading(title: str) -> RenderableType:
    from rich.text import Text

    return Text(on_one_line(title), "bold")


def story(row: Sample | Pair | Expanded, marked: bool, width: int = PROSE) -> Story:
    """All that is known of a row.

    Takes: `marked`: changes are marked by signs, since there is no colour; `width`: columns of the terminal
    """
    if isinstance(row, Expanded):
        yield from _expanded(row)
        return
    yield from _asked(row)
    if isinstance(row, Pair):
        yield from _pair(row)
    elif isinstance(row, Chain):
        yield from _chain(row, marked, width)
    else:
        yield from _sample(row)


def _label(text: str, note: str = "", style: str = "bold cyan") -> RenderableType:
    from rich.text import Text

    return Text.assemble((on_one_line(text), style), (f"  {on_one_line(note)}" if note else "", "dim"))


def _block(text: str | RenderableType, below: int = 1) -> RenderableType:
    from rich.constrain import Constrain
    from rich.padding import Padding
    from rich.text import Text

    inner = Text(visible(text), overflow="fold") if isinstance(text, str) else text
    return Padding(Constrain(inner, PROSE), (0, 0, below, INDENT), expand=False)


def _asked(row: Sample | Pair) -> Story:
    if isinstance(row, Sample) and row.system:
        yield _label("system prompt")
        yield _block(row.system)
    for turn in row.messages[:-1]:
        yield _turn(turn)
    yield _label("prompt", row.kind)
    yield _block(row.prompt)


def _turn(turn: Turn) -> RenderableType:
    from rich.console import Group

    return Group(_label(f"{turn.role} said", style="cyan"), _block(turn.content))


# A new prompt.


def _expanded(row: Expanded) -> Story:
    yield _label("prompt", ", ".join(filter(None, (row.kind, row.topic, row.model))))
    yield _block(row.prompt)
    near = f"{row.nearest}, {row.similarity:.0%} alike" if row.nearest and row.similarity is not None else "nothing"
    yield _label("nearest", near)
    yield _label("written after", ", ".join(row.seeds))


# A sample, and its rounds.


def _sample(row: Sample, text: str | None = None, name: str = "response") -> Story:
    tokens = f"{row.tokens_out} tokens" if row.tokens_out is not None else ""
    flags = [flag for flag, holds in (("refused", row.refused), ("truncated", row.truncated)) if holds]
    yield _label(name, ", ".join(part for part in (row.model, tokens, *flags) if part))
    yield _block((row.response if text is None else text) or "(no text)")
    if isinstance(row, Scored):
        yield from _scores(row.scores, _numbers(composite=row.composite))


def _chain(row: Chain, marked: bool, width: int) -> Story:
    yield from _sample(row, row.initial_response, "initial response")
    current = row.initial_response
    for number in row.rounds:
        yield from _round(number, current, marked, width)
        current = number.revision if number.accepted else current
    if row.stopped_by:
        yield _label("stopped by", row.stopped_by)
        yield ""


def _round(one: Round, current: str, marked: bool, width: int) -> Story:
    yield _label(f"round {one.round}", _numbers(severity=one.severity, quality=one.quality), "bold cyan")
    yield from _scores(one.scores)
    for critique in one.critiques:
        yield from _critique(critique)
    if one.accepted is None:
        yield _label("no revision yet", style="cyan")
    elif not one.revision:
        yield _label("not revised", style="cyan")
    else:
        yield from _revision(one, current, marked, width)
        if one.votes:
            yield _label("votes", "a: the text before, b: the revision", "cyan")
            yield _block(vote_table(one.votes))
        return
    yield ""


def _revision(one: Round, current: str, marked: bool, width: int) -> Story:
    from rich.text import Text

    name, before, after = "revision" if one.accepted else "revision, not accepted", visible(current), visible(one.revision)
    if before.strip() == after.strip():
        yield _label(name, style="cyan")
        yield _block(Text("(unchanged)", "dim"))
    elif width >= WIDE:
        yield _beside(name, before, after, marked, width)
    else:
        yield _label(name, style="cyan")
        yield _block(word_diff(before, after, marked))


def _beside(name: str, before: str, after: str, marked: bool, width: int) -> RenderableType:
    """The text before and the revision in two columns; what one has and the other has not is marked in each."""
    from rich.padding import Padding
    from rich.table import Table

    column = min(PROSE, (width - INDENT - 4) // 2)
    table = Table(box=None, pad_edge=False, padding=(0, 4, 0, 0), header_style="cyan")
    for title in ("the text before", name):
        table.add_column(title, width=column, overflow="fold")
    for left, right in side_by_side(before, after, marked):
        table.add_row(left, right)
    return Padding(table, (0, 0, 1, INDENT), expand=False)


def _critique(one: Critique) -> Story:
    if not one.critique and one.severity is None:
        yield _label(f"held to {one.principle}", ", ".join(part for part in (one.category, "no critique") if part), "cyan")
        return
    wanted = "asks for a revision" if one.needs_revision else "asks for no revision"
    note = ", ".join(part for part in (one.category, _numbers(severity=one.severity), wanted) if part)
    yield _label(f"critique by {one.principle}", note, "cyan")
    yield _block("\n".join([one.critique, *(f"- {text}" for text in one.suggestions)]))


def _scores(scores: Sequence[Score], note: str = "") -> Story:
    """Scores side by side, and what was said of each."""
    if not scores:
        return
    given = ", ".join(f"{one.criterion} {'not read' if one.score is None else f'{one.score:g}'}" for one in scores)
    yield _label("scores", ", ".join(part for part in (given, note) if part), "cyan")
    if said := "\n".join(f"{one.criterion}: {one.rationale}" for one in scores if one.rationale):
        yield _block(said)


def _numbers(**values: float | None) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items() if value is not None)


# A pair, and its votes.


def _pair(row: Pair) -> Story:
    chosen = row.preference if isinstance(row, Preference) else ""
    for side, text, source in (("a", row.response_a, row.source_a), ("b", row.response_b, row.source_b)):
        fate = "" if chosen not in ("a", "b") else "chosen" if chosen == side else "rejected"
        gold = "gold" if row.gold == side else ""
        style = {"chosen": "bold green", "rejected": "bold red"}.get(fate, "bold cyan")
        yield _label(f"response {side}{', ' + fate if fate else ''}", ", ".join(part for part in (source, gold) if part), style)
        yield _block(text)
        yield from _scores(row.scores_a if side == "a" else row.scores_b)
    if row.votes:
        yield _label("votes")
        yield _block(vote_table(row.votes))
        yield from _rationales(row.votes)
    yield _label("label")
    yield _block(_verdict(row))


def vote_table(votes: Sequence[Vote]) -> Table:
    """A row a labeler, criterion and draw; a column for either order."""
    cells: dict[tuple[str, str, int], dict[str, str]] = {}
    for vote in votes:
        cells.setdefault((vote.labeler, vote.principle, vote.draw), {})[vote.order] = _vote(vote)
    rows = [(labeler, principle, said.get("ab", "-"), said.get("ba", "-")) for (labeler, principle, _), said in cells.items()]
    return tabular(("labeler", "criterion", "a shown first", "b shown first"), rows, fold="criterion")


def _vote(vote: Vote) -> str:
    return vote.verdict if vote.p_a is None else f"{vote.verdict:<7} p_a {vote.p_a:.2f}"


def _rationales(votes: Sequence[Vote]) -> Story:
    for vote in votes:
        if vote.rationale:
            by = ", ".join(part for part in (vote.labeler, vote.principle, f"draw {vote.draw}" if vote.draw else "") if part)
            yield _label(by, ", ".join(part for part in (_called(vote), f"votes {vote.verdict}", vote.basis) if part), "cyan")
            yield _block(vote.rationale)


def _called(vote: Vote) -> str:
    """Which response a labeler saw under which name, the one shown first at the front."""
    if len(vote.labels) != 2:
        return f"{vote.order[0]} shown first"
    return " and ".join(f"{side} as {label}" for side, label in zip(vote.order, vote.labels, strict=True))


def _verdict(row: Pair) -> str:
    agree = {True: "the same winner in both orders", False: "another winner in the other order", None: ""}[row.consistent]
    parts = [f"prefers {row.preference}" if row.preference else "", _numbers(p_a=row.p_a, confidence=row.confidence), agree]
    if isinstance(row, Preference):
        parts += [
            _numbers(p_a_raw=row.p_a_raw, weight=row.weight, margin=row.margin),
            f"flags {', '.join(row.flags)}" if row.flags else "",
        ]
    return "\n".join(part for part in parts if part) or "none"


# Rejects.


def reject_story(row: Rejected) -> Story:
    """Why one row ended, and where."""
    yield _label(row.id or "(no id)", f"{row.stage}: {row.reason}", "bold yellow")
    lines = [line for line in (row.detail, f"at {row.where}" if row.where else "") if line]
    if lines:
        yield _block("\n".join(lines), below=0)


def reject_table(rows: Sequence[Rejected], width: int) -> Story:
    """Rejects as a table; where their ids leave no room for it, one under the other."""
    if max((len(row.id) for row in rows), default=0) > width // 3:
        for row in rows:
            yield from reject_story(row)
        return
    from rich.constrain import Constrain

    body = [(row.id or "-", row.stage, row.reason, "; ".join(filter(None, (row.where, row.detail)))) for row in rows]
    yield Constrain(tabular(("id", "stage", "reason", "detail"), body, fold="detail"), max(width // 2, PROSE + 2 * INDENT))


def reject_counts(counts: Mapping[str, int], shown: int) -> str:
    """A line under the table: how many there are, by reason."""
    every = sum(counts.values())
    of = f"{shown:,} of {every:,} rejects shown" if shown < every else f"{every:,} rejected"
    return f"{of}: {reasons(counts)}"
