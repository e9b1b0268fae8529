"""Print what a request costs on this machine: CPU, wall, memory, over HTTP to a server on loopback. `make bench`.

Three chained requests a prompt (generate, critique, revise), 500 prompts, 64 at once, no latency. Noisy machines: compare ratios.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from loopback import serve

PROMPTS, AT_ONCE = 500, 64


def config(url: str) -> dict[str, object]:
    """The job, as a config."""
    return {
        "name": "bench", "output": "data", "constitution": "constitutions/general.yaml", "limits": {"concurrency": AT_ONCE},
        "model": {"provider": "anthropic", "name": "small-world", "base_url": url, "max_tokens": 1024},
        "prompts": {"path": "prompts.jsonl"}, "generate": {"samples": 1}, "critique": {"template": "paper"},
        "revise": {"rounds": 1},
    }  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, serve() as server:
        rows = (json.dumps({"id": str(n), "prompt": f"Explain matter {n} in two sentences."}) for n in range(PROMPTS))
        Path(folder, "prompts.jsonl").write_text("\n".join(rows))
        Path(folder, "bench.json").write_text(json.dumps(config(server.url)))
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        env = {**os.environ, "ANTHROPIC_API_KEY": "none"}
        subprocess.run([sys.executable, "-m", "cai_cli", "run", "bench.json", "-q"], cwd=folder, env=env, check=True)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        requests = server.stats()["total"]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{requests} requests, {wall:.2f} s wall, {cpu:.2f} s CPU with start-up: {1000 * cpu / requests:.2f} ms a request, "
          f"{after.ru_maxrss / 1024:.0f} MB at most")  # fmt: skip


if __name__ == "__main__":
    main()
