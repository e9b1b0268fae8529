"""Processes of our own that take a share of many rows: each is told once what to do, and gets tasks one by one.

They end when whoever started them does, however that ends, and hear no signal themselves: a Ctrl-C goes to a whole group.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from cai_cli.errors import CaiError, Fatal

T = TypeVar("T")
R = TypeVar("R")
ENOUGH = 32_000_000  # bytes to go through, from which on it pays to start processes
MOST = 8
AHEAD = 4  # tasks a process: the next are ready when it has done one, also where another one takes longer
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def count_for(size: int) -> int:
    """How many processes to start for so many bytes; 0: none, do it here."""
    return min(MOST, len(os.sched_getaffinity(0))) if size >= ENOUGH else 0


class Workers:
    """Some processes, for as long as the `with` block. Below 2 there are none: what they would do is done here."""

    def __init__(self, count: int) -> None:
        self._count = count if count > 1 else 0
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        self._workers = [_Worker() for _ in range(self._count)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()

    def each(self, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """What `work` makes of each task, in their order; the same however many processes there are. Few tasks are held at once.

        Takes: a function that can be pickled (of a module, or a partial of one) and changes nothing that it is given
        Raises: what `work` raises of our errors and of the system's; Fatal: a process was killed; RuntimeError: a bug in one
        """
        if not self._workers:
            yield from map(work, tasks)
            return
        idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            worker.take_up(work)
            idle.put(worker)

        def asked(task: T) -> R:
            worker = idle.get()
            try:
                return worker.ask(task)  # type: ignore[no-any-return]
            finally:
                idle.put(worker)

        threads, asking = ThreadPoolExecutor(len(self._workers)), deque[Future[R]]()
        try:
            for task in tasks:
                asking.append(threads.submit(asked, task))
                if len(asking) > AHEAD * len(self._workers):
                    yield asking.popleft().result()
            while asking:
                yield asking.popleft().result()
        finally:  # a thread that still waits for an answer has it, or its end, when the processes end
            threads.shutdown(wait=False, cancel_futures=True)


class _Worker:
    """One process, asked by one thread at a time."""

    def __init__(self) -> None:
        package = str(Path(__file__).parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        with _undisturbed():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cai_cli.engine.workers"], env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        self._work: Callable[..., Any] | None = None  # what it has not been told yet

    def take_up(self, work: Callable[..., Any]) -> None:
        """From the next task on it does this."""
        self._work = work

    def _send(self, value: Any) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead: found out when its answer is read
            pickle.dump(value, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()

    def ask(self, task: Any) -> Any:
        assert self._process.stdout is not None
        self._send((self._work, task))
        self._work = None
        try:
            done, value = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise self._death() from None
        if not done:
            raise value
        return value

    def _death(self) -> Exception:
        assert self._process.stderr is not None
        said, code = self._process.stderr.read().decode("utf-8", "replace"), self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return Fatal(f"a process that did a share of the work was ended by {name}", "most often memory ran out: "
                         "free some, or set a smaller shards.rows; then run the same command again")  # fmt: skip
        return RuntimeError(f"a process that did a share of the work ended with exit {code}\n{said}")

    def end(self) -> None:
        """At once: what it was doing is not wanted any more."""
        self._process.kill()
        self._process.wait()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What is started inside will not hear the signals that stop a run. Those that come meanwhile are heard here, afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main() -> None:
    """Be such a process: tasks from stdin, and what to do with them where that changes; answers, and nothing else, to stdout."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    work = None
    with suppress(EOFError, BrokenPipeError):  # nobody asks any more
        while True:
            other, task = pickle.load(asked)
            work = other or work
            pickle.dump(_answer(work, task), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


def _answer(work: Any, task: Any) -> tuple[bool, Any]:
    try:
        return True, work(task)
    except (CaiError, OSError) as error:
        return False, error


if __name__ == "__main__":
    main()
