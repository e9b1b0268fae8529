"""Where a run stands: a frame for a terminal of any size, a line for a log."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cai_cli.reports import quantities as say
from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

WIDE = 140  # columns from which rejects stand beside their stage, and the bar and the facts share a line
NARROW = 66  # columns that the table of stages needs
MANY = 10  # replies that are being written: fewer come and go with every commit
OLD_S = 30.0  # a request in flight for longer is told
BAR = 30  # columns
Facts = Mapping[str, Any]  # of a stage: rows, rejected {reason: n}, requests, replayed, tokens_in, tokens_out, dollars


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One look at a run that goes on."""

    stages: Mapping[str, Facts]
    prompts: int
    done: int
    elapsed_s: float
    what: str = "prompts"  # that are counted, where they are others: probes, prompts of a pilot
    per_s: float | None = None  # of them, lately; None: too early to tell
    in_flight: int = 0
    writing: int = 0  # replies that came and are not on disk yet
    slots: int | None = None  # requests that may be in flight; None: nobody knows
    retried: Mapping[str, int] = field(default_factory=dict)  # by kind, over the whole run
    held: str = ""  # why nothing is sent at the moment
    unpriced: Container[str] = ()  # stages that ask a model whose price nobody knows
    stopping: bool = False
    budget_usd: float | None = None  # the cap; None: there is none
    gone_usd: float = 0.0  # of the cap, by all runs
    in_all_usd: float | None = None  # what will be gone of the cap when this run is whole; None: too early to tell
    servers: Sequence[Mapping[str, Any]] = ()  # as engine.servers tells them
    oldest: Mapping[str, Any] | None = None  # request in flight: host, age_s, deadline_s

    @property
    def left_s(self) -> float | None:
        return (self.prompts - self.done) / self.per_s if self.per_s else None

    @property
    def dollars(self) -> float:
        return float(sum(one["dollars"] for one in self.stages.values()))

    @property
    def over_budget(self) -> bool:
        """Whether the run will come to more than is left to it."""
        if self.budget_usd is None or self.in_all_usd is None:
            return False
        return self.in_all_usd > self.budget_usd

    @property
    def unknown(self) -> bool:
        """Whether some of it was for a model whose price nobody knows."""
        return any(name in self.unpriced and one["requests"] > 0 for name, one in self.stages.items())


def standing_of(run: Mapping[str, Any], unpriced: Container[str], elapsed_s: float) -> Standing:
    """From what the engine tells of a run, now or in its log; a log of an older version tells less."""
    writing = run.get("writing", 0)
    return Standing(
        stages=run["stages"], prompts=run["prompts"], done=run["done"], what=run.get("what", "prompts"), elapsed_s=elapsed_s,
        per_s=run.get("per_s"), in_flight=run["in_flight"] - writing, writing=writing, slots=run.get("slots"),
        retried=run["trouble"], held=run.get("held", ""), unpriced=unpriced, stopping=run.get("stopping", False),
        budget_usd=run.get("budget_usd"), gone_usd=run.get("budget_gone_usd", 0.0), in_all_usd=run.get("dollars_in_all"),
        servers=run.get("servers", ()), oldest=run.get("oldest"),
    )  # fmt: skip


def facts(standing: Standing, with_left: bool = True) -> str:
    """Speed, time left, what is in flight, what was retried; on one line."""
    return " · ".join(_facts(standing, with_left))


def _facts(standing: Standing, with_left: bool) -> list[str]:
    left = f"{say.duration(standing.left_s)} left" if with_left and standing.left_s is not None and not standing.stopping else ""
    flying = f"{standing.in_flight} in flight" + (f" of {standing.slots} slots" if standing.slots is not None else "")
    parts = [
        say.rate(standing.per_s, standing.what) if standing.per_s else "",
        left,
        flying,
        f"{standing.writing} being written" if standing.writing > MANY else "",
        f"retried: {on_one_line(say.reasons(standing.retried))}" if any(standing.retried.values()) else "",
    ]
    return [part for part in parts if part]


def money(standing: Standing) -> str:
    """What is spent of the budget, and what the run will come to; empty where neither is to be told."""
    return " · ".join(_money(standing))


def _money(standing: Standing) -> list[str]:
    parts = []
    if standing.budget_usd is not None:
        parts.append(f"{say.dollars(standing.gone_usd, standing.unknown)} of the budget of {say.dollars(standing.budget_usd)}")
    if standing.in_all_usd and not standing.unknown:
        over = ", more than the budget" if standing.over_budget else ""
        # beside the budget of all runs stands what all come to; else what this one does, as in its table
        before = 0.0 if standing.budget_usd is not None else standing.gone_usd - standing.dollars
        parts.append(f"about {say.dollars(standing.in_all_usd - before)} in all{over}")
    return parts


def old(standing: Standing) -> str:
    """A request that nobody has answered for long; empty where there is none."""
    oldest = standing.oldest
    if oldest is None or oldest["age_s"] < OLD_S:
        return ""
    return f"oldest request: out for {say.duration(oldest['age_s'])}, given up after {say.duration(oldest['deadline_s'])}"


def failing(standing: Standing) -> str:
    """Which servers of several do not answer; empty where all do."""
    if len(standing.servers) < 2:
        return ""
    dead = [one for one in standing.servers if one["failing_s"] is not None]
    names = ", ".join(f"{on_one_line(one['host'])} for {say.duration(one['failing_s'])}" for one in dead)
    return f"{len(dead)} of {len(standing.servers)} servers not answering: {names}" if dead else ""


def hold(standing: Standing) -> str:
    """Why nothing new is sent; empty where that is not so."""
    return "stopping: waiting for what is in flight" if standing.stopping else on_one_line(standing.held)


def stage_table(stages: Mapping[str, Facts], unpriced: Container[str] = (), why: bool = False) -> Table:
    """A row a stage; 80 columns are enough for any numbers. `why`: with the reasons of rejects, for wide terminals"""
    from cai_cli.reports.tabular import tabular

    head = ("stage", "rows", "rejected", "requests", "replayed", "tokens in", "out", "dollars", *(["why"] if why else []))
    rows = [_cells(name, one, name in unpriced, why) for name, one in stages.items()]
    return tabular(head, rows, right=head[1:8], fold="why" if why else "")


def _cells(name: str, one: Facts, unknown: bool, why: bool) -> list[Text]:
    from rich.text import Text

    rejected = sum(one["rejected"].values())
    texts = [
        on_one_line(name), say.count(one["rows"]), say.count(rejected), say.count(one["requests"]), say.count(one["replayed"]),
        say.tokens(one.get("tokens_in", 0)), say.tokens(one.get("tokens_out", 0)),
        say.dollars(one.get("dollars", 0.0), unknown and one["requests"] > 0), *([_why(one)] if why else []),
    ]  # fmt: skip
    quiet = "" if one["rows"] or one["requests"] else "dim"
    return [Text(text, "yellow" if at == 2 and rejected else quiet) for at, text in enumerate(texts)]


def _why(one: Facts) -> str:
    parts = ((say.reasons(one.get(what, {})), what) for what in ("rejected", "filtered"))
    told = (counts if what == "rejected" else f"{what}: {counts}" for counts, what in parts if counts != "0")
    return on_one_line("; ".join(told))


def server_table(servers: Sequence[Mapping[str, Any]]) -> Table:
    """A row a server: how many requests it has, and how it answers."""
    from rich.text import Text

    from cai_cli.reports.tabular import tabular

    rows = []
    for one in servers:
        slots = f"{one['slots']}" + (" for all" if one["shared"] > 1 else "")
        style = "" if one["failing_s"] is None else "yellow"
        rows.append((one["host"], one["in_flight"], slots, Text(_answering(one), style)))
    return tabular(("server", "in flight", "slots", "state"), rows, right=("slots",), fold="state")


def _answering(one: Mapping[str, Any]) -> str:
    rests = f"asked again in {say.duration(one['rests_s'])}" if one["rests_s"] >= 1 else ""
    if one["failing_s"] is not None:
        said = f": {one['said']}" if one["said"] else ""
        return on_one_line(f"no answer for {say.duration(one['failing_s'])}{said}") + (f"; {rests}" if rests else "")
    age = one["oldest_s"]
    waits = f"oldest request out for {say.duration(age)}" if age is not None and age >= OLD_S else ""
    return waits or rests or "answers"


def frame(standing: Standing, width: int, height: int = 50) -> RenderableType:
    """The table of stages, and below it how far the run is; in a small terminal a few lines of the latter.

    Takes: the terminal's size, in columns and rows
    """
    from cai_cli.reports.tabular import least_width

    wide = width >= WIDE
    table = stage_table(standing.stages, standing.unpriced, why=wide and any(_why(one) for one in standing.stages.values()))
    if width < max(NARROW, least_width(table)) or height < len(standing.stages) + 6:
        return _few_lines(standing)
    return _frame(standing, table, width)


def together(parts: Sequence[str], width: int) -> str:
    """Facts beside one another, on as few lines of `width` columns as hold them; broken between two facts."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]} · {part}" if lines[-1] else part
        if lines[-1] and len(longer) > width:
            lines.append(part)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _frame(standing: Standing, table: Table, width: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from cai_cli.reports.run_summary import lost, named

    wide = width >= WIDE
    below: list[RenderableType] = [] if wide else [Text(together(_facts(standing, with_left=True), width))]
    if spent := _money(standing):
        below.append(Text(together(spent, width), "yellow" if standing.over_budget else ""))
    below += [Text(part, "yellow") for part in _worries(standing)]
    if len(standing.servers) > 1:
        below += [Text(), server_table(standing.servers)]
    if not wide and (reasons := list(lost({name: {"filtered": {}, **one} for name, one in standing.stages.items()}))):
        below += [Text(), named(reasons)]
    return Group(table, Text(), _bar(standing, wide), *below)


def _bar(standing: Standing, with_facts: bool) -> RenderableType:
    """How far, as a bar and in numbers; on a wide terminal with the facts behind it."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = ProgressBar(
        total=max(1, standing.prompts), completed=standing.done, width=BAR, complete_style="cyan", finished_style="cyan"
    )
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(bar, Text(_how_far(standing), "bold"), *([Text(facts(standing))] if with_facts else []))
    return grid


def _how_far(standing: Standing) -> str:
    share = standing.done / standing.prompts if standing.prompts else 1.0
    return f"{standing.done:,}/{standing.prompts:,} {on_one_line(standing.what)} {share:4.0%}"


def _worries(standing: Standing) -> Iterator[str]:
    """What needs a look: all of it in words."""
    yield from (text for text in (hold(standing), old(standing)) if text)


def _few_lines(standing: Standing) -> RenderableType:
    """The same in a corner: what does not fit is cut off at the right, and nothing wraps."""
    from rich.console import Group
    from rich.text import Text

    rejected = sum(sum(one["rejected"].values()) for one in standing.stages.values())
    spent = say.dollars(standing.dollars, standing.unknown)
    budget = f" of {say.dollars(standing.budget_usd)}" if standing.budget_usd is not None else ""
    rest = _facts(standing, with_left=True)
    speed, rest = rest[: -1 if len(rest) == 1 else 2], rest[-1 if len(rest) == 1 else 2 :]
    lines = [
        (_how_far(standing), "bold"), *((text, "yellow") for text in (*_worries(standing), failing(standing)) if text),
        (" · ".join(speed), ""), (" · ".join(rest), ""), (f"{rejected:,} rejected · {spent}{budget}", ""),
    ]  # fmt: skip
    return Group(*(Text(text, style, no_wrap=True, overflow="ellipsis") for text, style in lines if text))


def line(standing: Standing) -> str:
    """The same for a log: one line, no escapes."""
    from tqdm import tqdm

    meter = tqdm.format_meter(
        standing.done, standing.prompts, standing.elapsed_s, rate=standing.per_s, unit=f" {standing.what}",
        bar_format=f"{{percentage:3.0f}}% {{n:,}}/{{total:,}} {standing.what} [{{elapsed}}<{{remaining}}]",
    )  # fmt: skip
    rows = ", ".join(f"{name} {one['rows']:,}" for name, one in standing.stages.items())
    rejected = sum(sum(one["rejected"].values()) for one in standing.stages.values())
    spent = money(standing) or say.dollars(standing.dollars, standing.unknown)
    told = f"{meter} {facts(standing, with_left=False)} · rows: {rows} · {rejected:,} rejected · {spent}"
    return " · ".join([told, *_worries(standing), *([failing(standing)] if failing(standing) else [])])
