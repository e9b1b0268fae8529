"""Print how much of a server's limit runs use: real `cai run` processes against `cai simulate`, which says 429 above its limits.

    python tests/benchmarks/limits.py [SCENARIO ...]

Three chained requests a prompt (generate, critique, revise), 64 at once, 50 ms a reply. Permitted is what the bucket held at the
start, and what came in from the first answer to the last. Lost are prompts that did not come through whole. 25 s a scenario.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from loopback import Server, serve

AT_ONCE, LATENCY_MS = 64, 50
PROMPT = "Explain matter {} in two sentences."
SCENARIOS: dict[str, dict[str, Any]] = {
    "requests": {"prompts": 700, "limit": {"rate": 80}},
    "requests a minute": {"prompts": 700, "limit": {"rpm": 1200}},
    "halved, doubled": {"prompts": 640, "limit": {"rate": 80}, "then": [(7, {"rate": 40}), (15, {"rate": 80})]},
    "doubled": {"prompts": 640, "limit": {"rate": 40}, "then": [(7, {"rate": 80})]},
    "input tokens": {"prompts": 160, "limit": {"itpm": 120_000}},
    "output tokens": {"prompts": 140, "limit": {"otpm": 30_000}},
    "two processes": {"prompts": 700, "limit": {"rate": 80}, "processes": 2},
    "two, input tokens": {"prompts": 160, "limit": {"itpm": 120_000}, "processes": 2},
    "own limit": {"prompts": 300, "own": {"requests_per_minute": 3600}},
    "two, own limit": {"prompts": 300, "own": {"requests_per_minute": 3600}, "processes": 2},
}  # fmt: skip
USED = {"itpm": "input", "otpm": "output"}


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit from some moment on, on the clock that all processes share."""

    since: float
    per_s: float
    size: float


def config(url: str, number: int, own: dict[str, float]) -> dict[str, object]:
    """The job of one process."""
    return {
        "name": "bench", "output": f"data{number}", "constitution": "constitutions/general.yaml",
        "limits": {"concurrency": AT_ONCE, **own}, "prompts": {"path": f"prompts{number}.jsonl"},
        "model": {"provider": "anthropic", "name": "small-world", "base_url": url, "max_tokens": 256},
        "generate": {"samples": 1}, "critique": {"template": "paper"}, "revise": {"rounds": 1},
    }  # fmt: skip


def limit_of(told: dict[str, Any], now: float) -> Limit:
    """What an option of the server means."""
    ((name, amount),) = told.items()
    return Limit(now, amount, amount) if name == "rate" else Limit(now, amount / 60, amount)


def permitted(limits: list[Limit], first: float, last: float) -> float:
    """What a bucket let through between two moments."""
    ends = [*(limit.since for limit in limits[1:]), last]
    came = sum(limit.per_s * max(0.0, min(end, last) - max(limit.since, first)) for limit, end in zip(limits, ends, strict=True))
    return limits[0].size + came


def change(server: Server, options: dict[str, Any]) -> None:
    """Change the server's options while it counts on."""
    urllib.request.urlopen(f"{server.url}/change", data=json.dumps(options).encode(), timeout=10).close()


def start(folder: Path, url: str, scenario: dict[str, Any]) -> list[subprocess.Popen[bytes]]:
    """The processes of a scenario, which share its prompts."""
    number = scenario.get("processes", 1)
    for process in range(number):
        rows = (json.dumps({"id": str(n), "prompt": PROMPT.format(n)}) for n in range(process, scenario["prompts"], number))
        (folder / f"prompts{process}.jsonl").write_text("\n".join(rows))
        (folder / f"bench{process}.json").write_text(json.dumps(config(url, process, scenario.get("own", {}))))
    env = {**os.environ, "ANTHROPIC_API_KEY": "sk-none", "XDG_RUNTIME_DIR": str(folder)}
    command = [sys.executable, "-m", "cai_cli", "run"]
    return [subprocess.Popen([*command, f"bench{one}.json", "-q"], cwd=folder, env=env) for one in range(number)]


def run(name: str, folder: Path) -> str:
    """One scenario. Gives: its line"""
    scenario = SCENARIOS[name]
    told, own = scenario.get("limit", {}), scenario.get("own", {}).get("requests_per_minute")
    with serve(latency_ms=LATENCY_MS, **told) as server:
        processes = start(folder, server.url, scenario)
        limits = [limit_of(told or {"rate": own / 60}, 0.0)]
        begun = time.monotonic()
        for after_s, options in scenario.get("then", ()):
            time.sleep(max(0.0, begun + after_s - time.monotonic()))
            change(server, options)
            limits.append(limit_of(options, time.monotonic()))
        bad = sum(process.wait() != 0 for process in processes)
        found = server.stats()
    return line(name, scenario, limits, found, bad, rows(folder))


def rows(folder: Path) -> int:
    """The prompts that came through whole."""
    return sum(len(path.read_bytes().splitlines()) for path in folder.glob("data*/revise/latest/train-*.jsonl"))


def line(name: str, scenario: dict[str, Any], limits: list[Limit], found: dict[str, Any], bad: int, whole: int) -> str:
    """What came of a scenario, in one line."""
    first, last = found["answered_s"]
    kind = next((USED[option] for option in scenario.get("limit", {}) if option in USED), "")
    used = sum(one[kind] for one in found["tokens"].values()) if kind else found["statuses"]["200"]
    allowed = permitted(limits, first, last) if scenario.get("limit") else limits[0].per_s * (last - first)
    refused = found["statuses"].get("429", 0)
    return (f"{name:<20} {used / allowed:9.3f} {refused:6} {refused / found['total']:7.2%} {scenario['prompts'] - whole:5} "
            f"{last - first:7.1f} {found['total'] / (last - first):7.1f}" + (f"  {bad} ended badly" if bad else ""))  # fmt: skip


def main() -> None:
    print(f"{'':<20} permitted   429s   share  lost  span s   per s")
    for name in sys.argv[1:] or SCENARIOS:
        with tempfile.TemporaryDirectory() as folder:
            print(run(name, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
