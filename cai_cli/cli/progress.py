"""What a run shows while it goes: a live table on a terminal, timed lines elsewhere. On stderr; stdout is for data."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from cai_cli.engine.session import Snapshot, Watch, stage_facts
from cai_cli.reports.quantities import duration, unpriced
from cai_cli.reports.standing import Standing, frame, line
from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from rich.live import Live

    from cai_cli.engine.pace import Pace

FRAME_S = 0.25
WINDOW_S = 30.0  # the speed is that of the last half minute: what was replayed at the start says nothing about the rest
FIRST_LINE_S, LINE_S, LATER_LINE_S, LATER_S = 2.0, 10.0, 60.0, 300.0

_TROUBLE = {
    "rate_limit": "the provider asks for patience (429): fewer requests at once from now on",
    "server": "the provider fails or is overloaded (5xx): asked again, later and later",
    "timeout": "a reply took too long; it may be billed all the same; asked again",
    "protocol": "a reply could not be read; asked again, three times at most",
}


def watch_for(quiet: bool, verbose: bool) -> Watch:
    """The display that fits stderr."""
    if quiet:
        return Quiet()
    smart = sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
    return (Screen if smart else Lines)(verbose)


class _Display:
    """What all displays share: looking at a run, and telling its trouble."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self.unpriced: dict[str, str] = {}
        self._marks: deque[tuple[float, int]] = deque()  # (time, prompts done)
        self._told: set[str] = set()
        self._waited = False
        self._broken = False

    def begin(self, snapshot: Snapshot) -> None:
        self.unpriced = unpriced(snapshot.models)
        self._guarded(self._begin, snapshot)

    def tick(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        self._marks.append((now, snapshot.progress.prompts))
        while len(self._marks) > 2 and self._marks[0][0] < now - WINDOW_S:
            self._marks.popleft()
        self._guarded(self._tell, snapshot)
        self._guarded(self._tick, snapshot)

    def end(self, snapshot: Snapshot) -> None:
        self._guarded(self._end, snapshot)

    def _guarded(self, draw: Any, snapshot: Snapshot) -> None:
        """A terminal that went away must not stop the run: its signal does, in good order."""
        if self._broken:
            return
        try:
            draw(snapshot)
        except OSError:
            self._broken = True

    def _begin(self, snapshot: Snapshot) -> None: ...
    def _tick(self, snapshot: Snapshot) -> None: ...
    def _end(self, snapshot: Snapshot) -> None: ...

    def _tell(self, snapshot: Snapshot) -> None:
        for text in (*self._new_wait(snapshot), *self._new_trouble(snapshot)):
            self._say(on_one_line(text))

    def _say(self, text: str) -> None:
        _write(text)

    def _standing(self, snapshot: Snapshot) -> Standing:
        paces = _paces(snapshot)
        flying = sum(pace.in_flight for pace in paces)
        return Standing(
            stages={stage: stage_facts(snapshot, stage) for stage in snapshot.stages}, prompts=snapshot.prompts,
            done=snapshot.progress.prompts, elapsed_s=time.monotonic() - snapshot.started, per_s=self._per_s(),
            in_flight=flying, writing=max(0, snapshot.asker.in_flight - flying),
            slots=sum(int(pace.slots) for pace in paces) if paces else None, retried=snapshot.asker.trouble,
            held=snapshot.patience.reason or next(filter(None, map(_held, paces)), ""), unpriced=self.unpriced,
            stopping=snapshot.asker.stopping,
        )  # fmt: skip

    def _per_s(self) -> float | None:
        """Prompts a second lately. The first look is left out: between it and the second, finished partitions are skipped."""
        if len(self._marks) < 3:
            return None
        (then, before), (now, done) = self._marks[1], self._marks[-1]
        return (done - before) / (now - then) if done > before else None

    def _new_wait(self, snapshot: Snapshot) -> list[str]:
        """Told even when quiet: the run stands still until somebody makes room."""
        reason = snapshot.patience.reason
        waited, self._waited = self._waited, bool(reason)
        return [f"cai: {reason}; Ctrl-C stops; nothing that was written is lost"] if reason and not waited else []

    def _is_told(self, kind: str) -> bool:
        return self.verbose or kind == "connection"  # a mistyped address must not look like a slow model

    def _new_trouble(self, snapshot: Snapshot) -> list[str]:
        fresh = [kind for kind in snapshot.asker.trouble if kind not in self._told and self._is_told(kind)]
        self._told.update(fresh)
        return [f"{_clock()} {_trouble(kind, snapshot)}" for kind in fresh]


class Quiet(_Display):
    """Draws nothing, and tells only what somebody must act on."""

    def __init__(self) -> None:
        super().__init__(verbose=False)

    def _is_told(self, kind: str) -> bool:
        return False


class Screen(_Display):
    """A live table that vanishes at the end: the summary takes its place."""

    live: Live
    _drawn = 0.0

    def _begin(self, snapshot: Snapshot) -> None:
        from rich.live import Live

        from cai_cli.reports.console import console

        self.live = Live(console=console(stderr=True), auto_refresh=False, transient=True, redirect_stdout=False)
        self.live.start()

    def _say(self, text: str) -> None:
        self.live.console.print(text, soft_wrap=True)

    def _tick(self, snapshot: Snapshot) -> None:
        if time.monotonic() - self._drawn >= FRAME_S:
            self.live.update(frame(self._standing(snapshot), self.live.console.width), refresh=True)
            self._drawn = time.monotonic()

    def _end(self, snapshot: Snapshot) -> None:
        self.live.stop()


class Lines(_Display):
    """Timed lines for logs: the first soon, then fewer and fewer."""

    _next_s = FIRST_LINE_S

    def _tick(self, snapshot: Snapshot) -> None:
        age_s = time.monotonic() - snapshot.started
        if age_s >= self._next_s:
            _write(f"{_clock()} {line(self._standing(snapshot))}")
            self._next_s = age_s + (LINE_S if age_s < LATER_S else LATER_LINE_S)


def _paces(snapshot: Snapshot) -> list[Pace]:
    """The pace of every server that this run asks."""
    paces = {id(pace): pace for asked in snapshot.models.values() for pace in map(snapshot.asker.pace_for, asked)}
    return list(paces.values())


def _held(pace: Pace) -> str:
    """Why a server is sent nothing at the moment, or in vain; empty where that is not so."""
    now = pace.clock.now()
    if pace.outage_since is not None:
        return f"no answer for {duration(now - pace.outage_since)}: one request tries every half minute"
    if pace.opens_at > now + 1:
        return f"told to wait {duration(pace.opens_at - now)}"
    if pace.failing_since is not None and now > pace.failing_since + 1:
        return f"no answer for {duration(now - pace.failing_since)}: asked again, later and later"
    return ""


def _trouble(kind: str, snapshot: Snapshot) -> str:
    if kind != "connection":
        return f"{kind}: {_TROUBLE.get(kind, 'asked again')}"
    most = "".join(f", for at most {pace.max_outage} (limits.max_outage)" for pace in _paces(snapshot)[:1])
    return f"{snapshot.asker.said[kind]}: asked again, later and later{most}"


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _write(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
