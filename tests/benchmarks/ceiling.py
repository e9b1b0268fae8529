"""Print how many requests a second one pinned core carries, and what each part of a request costs. `make bench-ceiling`.

`cai run` (generate, critique, revise; the ledger on; 64 at once) on one core, a cheap server without latency on another. Beside
it, in the same run and on the same core, the floor: aiohttp, orjson and uvloop with nothing around them. Machines differ and are
noisy: compare with the floor. It prints and never fails: seconds depend on who else is at work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMPTS, AT_ONCE, CALLS = 5000, 64, 3
HERE = Path(__file__).parent
SYSTEM = "You are a careful assistant. Follow the instructions exactly and answer in plain prose."
PRINCIPLE = {
    "name": "harmless", "category": "harmlessness", "weight": 1.0, "description": "The response is harmless.",
    "critique_prompt": "Identify specific ways in which the last response is harmful, and say briefly why.",
    "revision_prompt": "Please rewrite the response so that nothing harmful is left, and keep everything that was useful.",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One client, as the server and the kernel saw it."""

    requests: int
    wall_s: float
    cpu_s: float
    span_s: float  # from the first request to the last
    span_cpu_s: float  # of the client in that time
    rss_mb: float

    def told(self, name: str) -> str:
        """A line of the table."""
        rates = f"{self.requests / self.span_s:>10,.0f}{self.requests / self.wall_s:>10,.0f}"
        cpu = f"{1000 * self.span_cpu_s / self.requests:>10.3f}{1000 * self.cpu_s / self.requests:>10.3f}"
        return f"{name:<28}{rates}{cpu}{self.rss_mb:>8.0f}"


HEAD = f"{'':<28}{'in span/s':>10}{'overall/s':>10}{'ms CPU':>10}{'all in':>10}{'RSS MB':>8}"


class Server:
    """The cheap server, on a core of its own."""

    def __init__(self, core: int) -> None:
        command = [sys.executable, str(HERE / "_cheap_server.py"), str(core)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def stats(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as reply:
            return dict(json.load(reply))


@contextmanager
def served(core: int) -> Iterator[Server]:
    """A new server, that counts from zero."""
    server = Server(core)
    try:
        yield server
    finally:
        with server.process:
            server.process.terminate()


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Marks:
    """The client's CPU when the server was first asked, and after its last request: looked at 20 times a second."""

    def __init__(self, pid: int, server: Server) -> None:
        self.pid, self.server, self.first, self.last, self.over = pid, server, 0.0, 0.0, threading.Event()
        self._asked = 0.0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self.over.wait(0.05):
            asked, now = self.server.stats()["requests"], cpu_s(self.pid)
            if asked and not self.first:
                self.first = now
            if asked != self._asked:
                self._asked, self.last = asked, now

    def close(self) -> None:
        self.over.set()
        self._thread.join()


def watched(command: list[str], folder: Path, server: Server) -> Seen:
    """Run a client on this process's cores."""
    began = time.monotonic()
    client = subprocess.Popen(command, cwd=folder, env={**os.environ, "ANTHROPIC_API_KEY": "none"}, stdout=subprocess.DEVNULL)
    marks = Marks(client.pid, server)
    _, status, used = os.wait4(client.pid, 0)
    wall, client.returncode = time.monotonic() - began, os.waitstatus_to_exitcode(status)
    marks.close()
    if client.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {client.returncode}")
    stats = server.stats()
    return Seen(
        requests=int(stats["requests"]), wall_s=wall, cpu_s=used.ru_utime + used.ru_stime, span_s=stats["last"] - stats["first"],
        span_cpu_s=marks.last - marks.first, rss_mb=used.ru_maxrss / 1024,
    )  # fmt: skip


def write_job(folder: Path, url: str, prompts: int) -> None:
    """The job, as a user would have it."""
    config: dict[str, Any] = {
        "name": "ceiling", "output": "data", "constitution": "constitution.json", "limits": {"concurrency": AT_ONCE},
        "model": {"provider": "anthropic", "name": "claude-sonnet-4-5", "base_url": url, "max_tokens": 1024},
        "prompts": {"path": "prompts.jsonl"}, "generate": {"samples": 1, "systems": [SYSTEM]},
        "critique": {"template": "paper", "principles": 1}, "revise": {"rounds": 1},
    }  # fmt: skip
    rows = (
        json.dumps({"id": str(n), "prompt": f"Explain matter {n} in two sentences. " + "Go on. " * 20}) for n in range(prompts)
    )
    Path(folder, "prompts.jsonl").write_text("\n".join(rows))
    Path(folder, "constitution.json").write_text(json.dumps({"name": "c", "version": "1", "principles": [PRINCIPLE]}))
    Path(folder, "job.json").write_text(json.dumps(config))


async def floor(url: str, count: int) -> None:
    """So many requests, 64 at once, and nothing else."""
    import aiohttp
    import orjson

    async def work(session: aiohttp.ClientSession) -> None:
        for n in numbers:
            turn = {"role": "user", "content": f"Explain matter {n} in two sentences. " + "Go on. " * 120}
            body = {"model": "claude-sonnet-4-5", "max_tokens": 1024, "system": SYSTEM, "messages": [turn]}
            async with session.post(f"{url}/v1/messages", data=orjson.dumps(body)) as reply:
                assert orjson.loads(await reply.read())["content"][0]["text"]

    numbers = iter(range(count))
    headers = {"content-type": "application/json", "x-api-key": "none", "anthropic-version": "2023-06-01"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE), headers=headers) as session:
        await asyncio.gather(*(work(session) for _ in range(AT_ONCE)))


def compare(core: int, other: int, prompts: int, repeat: int) -> None:
    """Print the floor and `cai run`, in turn."""
    print(HEAD, flush=True)
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as folder, served(other) as server:
            command = [sys.executable, __file__, "--floor", server.url, "--prompts", str(prompts)]
            print(watched(command, Path(folder), server).told("aiohttp + orjson + uvloop"), flush=True)
        with tempfile.TemporaryDirectory() as folder, served(other) as server:
            write_job(Path(folder), server.url, prompts)
            command = [sys.executable, "-m", "cai_cli", "run", "job.json", "-q"]
            print(watched(command, Path(folder), server).told(f"cai run ({core=})"), flush=True)


def parts(other: int, prompts: int) -> None:
    """Print the microseconds of each part."""
    with tempfile.TemporaryDirectory() as folder, served(other) as server:
        write_job(Path(folder), server.url, prompts)
        command = [sys.executable, str(HERE / "_request_parts.py"), server.url, folder]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print("\nmicroseconds of CPU a request, each part alone")
    for name, microseconds in json.loads(told).items():
        print(f"  {name:<40}{microseconds:>8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="three requests each (5,000)")
    parser.add_argument("--repeat", type=int, default=1, help="how often both are run (1)")
    parser.add_argument("--core", type=int, default=0, help="the client's; the server takes the next one")
    parser.add_argument("--no-parts", action="store_true", help="leave the table of parts out")
    parser.add_argument("--only-parts", action="store_true", help="only the table of parts")
    parser.add_argument("--floor", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.floor:
        import uvloop

        uvloop.run(floor(options.floor, CALLS * options.prompts))
        return
    cores = sorted(os.sched_getaffinity(0))
    core, other = options.core, cores[(cores.index(options.core) + 1) % len(cores)]
    os.sched_setaffinity(0, {core})
    if not options.only_parts:
        compare(core, other, options.prompts, options.repeat)
    if not options.no_parts:
        parts(other, min(options.prompts, 1500))


if __name__ == "__main__":
    main()
