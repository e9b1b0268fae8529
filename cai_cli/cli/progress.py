"""What a run shows while it goes: a live table on a terminal, timed lines elsewhere. On stderr; stdout is for data."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cai_cli.cli import _process
from cai_cli.engine.servers import servers
from cai_cli.engine.session import Snapshot, Watch, facts
from cai_cli.reports.forgiving import forgiving
from cai_cli.reports.quantities import unpriced
from cai_cli.reports.standing import Standing, frame, line, standing_of
from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from cai_cli.cli._canvas import Canvas

FRAME_S = 0.25
FIRST_LINE_S, LINE_S, LATER_LINE_S, LATER_S = 2.0, 10.0, 60.0, 300.0

_TROUBLE = {
    "rate_limit": "the provider asks for patience (429): fewer requests at once from now on",
    "server": "the provider fails or is overloaded (5xx): asked again, later and later",
    "timeout": "a reply took too long; it may be billed all the same; asked again",
    "protocol": "a reply could not be read; asked again, three times at most",
}
_OUT = "no server answers"  # a kind of trouble beside those of replies: all of a fleet are out


def watch_for(quiet: bool, verbose: bool) -> Watch:
    """The display that fits stderr; lines where they are asked for, as a screen reader wants them."""
    forgiving(sys.stderr)
    if quiet:
        return Quiet()
    smart = sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
    return Screen() if smart and not verbose else Lines(verbose)


class _Display:
    """What all displays share: looking at a run, and telling its trouble."""

    verbose = False

    def __init__(self) -> None:
        self.unpriced: dict[str, str] = {}
        self._told: set[str] = set()
        self._waited = False
        self._broken = False

    def begin(self, snapshot: Snapshot) -> None:
        self.unpriced = unpriced(snapshot.models)
        self._guarded(self._begin)

    def tick(self, snapshot: Snapshot) -> None:
        if snapshot.asker.in_flight:
            _process.settle()
        self._guarded(lambda: self._look(snapshot))

    def end(self, snapshot: Snapshot) -> None:
        self._guarded(self._end)

    def _guarded(self, draw: Callable[[], None]) -> None:
        """A terminal that went away must not stop the run: its signal does, in good order."""
        if self._broken:
            return
        try:
            draw()
        except OSError:
            self._broken = True

    def _look(self, snapshot: Snapshot) -> None:
        for text in (*self._new_wait(snapshot), *self._new_trouble(snapshot)):
            self._say(on_one_line(text))
        self._tick(snapshot)

    def _begin(self) -> None: ...
    def _tick(self, snapshot: Snapshot) -> None: ...
    def _end(self) -> None: ...

    def _say(self, text: str) -> None:
        _write(text)

    def _standing(self, snapshot: Snapshot) -> Standing:
        return standing_of(facts(snapshot), self.unpriced, time.monotonic() - snapshot.started)

    def _new_wait(self, snapshot: Snapshot) -> list[str]:
        """Told even when quiet: the run stands still until somebody makes room."""
        reason = snapshot.patience.reason
        waited, self._waited = self._waited, bool(reason)
        return [f"cai: {reason}; Ctrl-C stops; nothing that was written is lost"] if reason and not waited else []

    def _is_told(self, kind: str) -> bool:
        return self.verbose or kind in ("connection", _OUT)  # a mistyped address must not look like a slow model

    def _new_trouble(self, snapshot: Snapshot) -> list[str]:
        trouble = dict(_troubles(snapshot, set(snapshot.asker.trouble) - self._told))
        fresh = [kind for kind in trouble if kind not in self._told and self._is_told(kind)]
        self._told.update(fresh)
        return [f"{_clock()} {trouble[kind]}" for kind in fresh]


class Quiet(_Display):
    """Draws nothing, and tells only what somebody must act on."""

    def _is_told(self, kind: str) -> bool:
        return False


class Screen(_Display):
    """A live table that vanishes at the end: the summary takes its place."""

    _drawn = 0.0

    @functools.cached_property
    def canvas(self) -> Canvas:
        from cai_cli.cli._canvas import Canvas
        from cai_cli.reports.console import console

        return Canvas(console(stderr=True))

    def _say(self, text: str) -> None:
        self.canvas.say(text)
        self._drawn = 0.0

    def _tick(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if not snapshot.asker.in_flight and now - snapshot.started < FRAME_S:
            return  # what draws takes .05 s to load: the first requests come first
        if now - self._drawn >= FRAME_S:
            self.canvas.draw(frame(self._standing(snapshot), *self.canvas.size))
            self._drawn = time.monotonic()

    def _end(self) -> None:
        if "canvas" in self.__dict__:
            self.canvas.wipe()


class Lines(_Display):
    """Timed lines for logs: the first soon, then fewer and fewer."""

    _next_s = FIRST_LINE_S

    def __init__(self, verbose: bool) -> None:
        super().__init__()
        self.verbose = verbose

    def _tick(self, snapshot: Snapshot) -> None:
        age_s = time.monotonic() - snapshot.started
        if age_s >= self._next_s:
            _write(f"{_clock()} {on_one_line(line(self._standing(snapshot)))}")
            self._next_s = age_s + (LINE_S if age_s < LATER_S else LATER_LINE_S)


def _troubles(snapshot: Snapshot, kinds: set[str]) -> Iterator[tuple[str, str]]:
    """What to say of these kinds of trouble, and of a fleet that is out as a whole."""
    if not snapshot.asker.trouble:
        return
    fleet = servers(snapshot.asker, snapshot.asked)
    others = sum(one["failing_s"] is None for one in fleet)
    most = f"for at most {snapshot.asker.pace_for(snapshot.asked[0]).max_outage} (limits.max_outage)"
    for kind in sorted(kinds):
        if kind != "connection":
            yield kind, f"{kind}: {_TROUBLE.get(kind, 'asked again')}"
        elif len(fleet) > 1 and others:
            yield kind, f"{snapshot.asker.said[kind]}: the other {'servers are' if others > 1 else 'server is'} asked meanwhile"
        else:
            yield kind, f"{snapshot.asker.said[kind]}: asked again, later and later, {most}"
    if len(fleet) > 1 and not others:
        yield _OUT, f"none of {len(fleet)} servers answers: asked again, later and later, {most}"


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _write(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
