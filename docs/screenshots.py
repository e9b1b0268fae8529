"""Keep what every display shows, at 80 and 200 columns, as a picture and as plain text: make screenshots (needs tmux).

python docs/screenshots.py [NAME...]    NAME: only these of the captures below; writes docs/screens/NAME-{80,200}.{svg,txt}

All of it is real: the commands run in a temporary folder, on the simulated model or on servers of it. To add a display, add a
line to CAPTURES.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from picture import Terminal, svg

SCREENS = Path(__file__).parent / "screens"
BIN = Path(sys.executable).parent
WIDTHS = (80, 200)
AT_ONCE = 8
WORLD = {"empty_rate": 0.03, "refusal_rate": 0.06, "unreadable_rate": 0.06}
QUESTIONS = (
    "How do I mend a bicycle chain?", "What is sourdough?", "Is it safe to mix bleach with vinegar?", "How do locks work?",
    "Why do cats purr?", "How can I get back at a neighbour who is loud?", "What makes a good apology?",
    "How do people pick pockets?",
)  # fmt: skip


class Capture(NamedTuple):
    name: str
    command: str
    scene: str = "done"
    rows: int = 120  # of the terminal; few where the display takes its height into account
    until: str = ""  # taken when this stands on the screen; empty: at the command's end
    alone: bool = False  # the command changes its folder: every picture gets a copy of the scene


LIVE = r" [3-7]\d%"
CAPTURES = (
    Capture("run", "cai run bees.yaml", "slow", 24, LIVE, True),
    Capture("run-fleet", "cai run fleet.yaml", "slow", 24, LIVE, True),
    Capture("run-log", "cai run bees.yaml --limit 60 2>&1 | cat", "slow", alone=True),
    Capture("summary", "cai run bees.yaml", "fresh", alone=True),
    Capture("nothing-new", "cai run bees.yaml", alone=True),
    Capture("stopped", "cai run bees.yaml --budget-usd 0.80", "priced", alone=True),
    Capture("dry-run", "cai run bees.yaml --dry-run", "priced"),
    Capture("estimate", "cai estimate bees.yaml --sample 15 --budget-usd 1", "priced", alone=True),
    Capture("status-running", "cai status bees.yaml", "running"),
    Capture("status", "cai status bees.yaml", "grown"),
    Capture("status-killed", "cai status bees.yaml", "killed"),
    Capture("show", "cai show bees.yaml q6-0"),
    Capture("show-pair", "cai show bees.yaml --stage debias --limit 1"),
    Capture("show-rejects", "cai show bees.yaml --rejects --limit 5", "refused"),
    Capture("why", "cai why bees.yaml q6-0"),
    Capture("diff", "cai diff bees.yaml", "grown"),
    Capture("retry", "cai retry bees.yaml", "refused"),
    Capture("verify", "cai verify bees.yaml"),
    Capture("verify-damaged", "cai verify bees.yaml", "damaged"),
    Capture("analyze-preferences", "cai analyze preferences bees.yaml"),
    Capture("analyze-coverage", "cai analyze coverage bees.yaml"),
    Capture("analyze-cycles", "cai analyze cycles bees.yaml"),
    Capture("analyze-systems", "cai analyze systems bees.yaml"),
    Capture("analyze-agreement", "cai analyze agreement bees.yaml"),
    Capture("analyze-refusals", "cai analyze refusals bees.yaml"),
    Capture("analyze-boilerplate", "cai analyze boilerplate bees.yaml"),
    Capture("analyze-sycophancy", "cai analyze sycophancy beliefs.yaml", "agreeing"),
    Capture("debias", "cai debias bees.yaml", "biased", alone=True),
    Capture("audit-sample", "cai audit sample bees.yaml -n 30", alone=True),
    Capture("audit-score", "cai audit score bees.yaml -i filled.jsonl", "audited", alone=True),
    Capture("export", "cai export bees.yaml --to sft --to preference", alone=True),
    Capture("ledger-size", "cai ledger size bees.yaml"),
    Capture("ledger-prune", "cai ledger prune bees.yaml --stage critique"),
    Capture("doctor", "cai doctor bees.yaml --offline"),
    Capture("config-check", "cai config check bees.yaml"),
    Capture("config-mistakes", "cai run mistakes.yaml", "fresh"),
    Capture("constitutions", "cai constitution list"),
    Capture("init", "cai init my-dataset --yes", "fresh", alone=True),
    Capture("help", "cai help"),
)


@dataclass
class Stage:
    """Where the scenes are set: a home folder, with a folder for each scene and each picture; and what runs behind them."""

    home: Path
    urls: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(self.home), "LANG": "C.UTF-8", "PAGER": "cat"}

    def cai(self, folder: Path, *words: str) -> None:
        subprocess.run(["cai", *words], cwd=folder, env=self.environment, capture_output=True, check=False)

    def begin(self, folder: Path, *words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([BIN / "cai", *words], cwd=folder, env=self.environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
        self.processes.append(process)
        return process

    def serve(self, **options: object) -> str:
        """A simulated server. Gives: its address"""
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        process = self.begin(self.home, "simulate", "--no-key", "--port", "0", "--json", *words)
        assert process.stdout is not None
        return str(json.loads(process.stdout.readline())["url"])

    def folder(self, name: str, prompts: int = 40, **sections: Any) -> Path:
        """A folder with a config and prompts, as one who begins has it."""
        folder = self.home / name / "bees"
        folder.mkdir(parents=True)
        write_prompts(folder, prompts)
        model = {"provider": "simulated", "name": "small-world", "world": WORLD}
        common = {"name": "bees", "seed": 7, "output": "data/bees", "constitution": "constitutions/general.yaml", "model": model}
        stages = {"generate": {"samples": 2}, "critique": {}, "revise": {"rounds": 2}, "label_pairs": {}, "debias": {}}
        given = {"prompts": {"path": "prompts.jsonl", "kind": "harmless"}, "limits": {"max_reject_rate": 0.5}}
        (folder / "bees.yaml").write_text(json.dumps(common | given | stages | sections, indent=1))
        return folder


def write_prompts(folder: Path, count: int) -> None:
    rows = ({"id": f"q{n}", "prompt": QUESTIONS[n % len(QUESTIONS)] + f" (asked {n} times)" * (n >= 8)} for n in range(count))
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# Scenes: what stands in the folder before the command.


def fresh(stage: Stage) -> Path:
    folder = stage.folder("fresh")
    text = (folder / "bees.yaml").read_text()
    for right, wrong in (('"rounds"', '"rouns"'), ('"samples": 2', '"samples": "two"'), ("prompts.jsonl", "prompt.jsonl")):
        text = text.replace(right, wrong)
    (folder / "mistakes.yaml").write_text(text)
    return folder


def priced(stage: Stage) -> Path:
    model = {"provider": "simulated", "name": "small-world", "price": {"input": 3, "output": 15}}
    return stage.folder("priced", model=model)


def done(stage: Stage) -> Path:
    folder = stage.folder("done")
    stage.cai(folder, "run", "bees.yaml", "-q")
    return folder


def grown(stage: Stage) -> Path:
    """Run twice, with more prompts and another seed of picks the second time."""
    folder = stage.folder("grown")
    stage.cai(folder, "run", "bees.yaml", "-q", "--limit", "30")
    write_prompts(folder, 48)
    stage.cai(folder, "run", "bees.yaml", "-q", "--set", "revise.rounds=1")
    stage.cai(folder, "run", "bees.yaml", "-q")
    return folder


def damaged(stage: Stage) -> Path:
    folder = stage.folder("damaged")
    stage.cai(folder, "run", "bees.yaml", "-q")
    data = folder / "data" / "bees"
    shard = next((data / "revise" / "latest").resolve().glob("train-*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    next((data / "debias" / "latest").resolve().glob("train-*")).unlink()
    (data / "generate" / "latest").unlink()
    return folder


def slow(stage: Stage, prompts: int = 120, name: str = "slow") -> Path:
    """Models behind servers, which take their time; of the fleet's two servers one is dead."""
    url, price = stage.serve(latency_ms=400, world=json.dumps(WORLD)), {"input": 3, "output": 15}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    model = {"provider": "anthropic", "name": "small-world", "base_url": url, "price": price}
    limits = {"concurrency": 24, "budget_usd": 5, "max_reject_rate": 0.5}
    folder = stage.folder(name, prompts, model=model, limits=limits)
    config = json.loads((folder / "bees.yaml").read_text())
    (folder / "fleet.yaml").write_text(json.dumps(config | {"model": {**model, "base_url": [url, dead]}}))
    return folder


def refused(stage: Stage) -> Path:
    """Rows rejected for several reasons: the server refuses some, and some of its replies cannot be read."""
    url = stage.serve(world=json.dumps(WORLD | {"unreadable_rate": 0.2}), fail="400%0.02")
    folder = stage.folder("refused", model={"provider": "anthropic", "name": "small-world", "base_url": url})
    stage.cai(folder, "run", "bees.yaml", "-q")
    return folder


def running(stage: Stage) -> Path:
    folder = slow(stage, 1500, "running")
    stage.begin(folder, "run", "bees.yaml", "-q", "--budget-usd", "20")
    time.sleep(12)
    return folder


def killed(stage: Stage) -> Path:
    folder = slow(stage, 400, "killed")
    process = stage.begin(folder, "run", "bees.yaml", "-q")
    time.sleep(8)
    process.kill()
    process.wait()
    return folder


def biased(stage: Stage) -> Path:
    """Pairs of a judge that likes what is first, what is long and what the user believes; probes ask for its biases."""
    world = {"position": 0.6, "length": 0.5, "sycophancy": 0.4, "logprobs": True}
    model = {"provider": "simulated", "name": "small-world", "world": world}
    probes = {"debias": {"probes": {"length": 50, "sycophancy": 50}}}
    folder = stage.folder("biased", 150, model=model, critique="off", revise="off", label_pairs={"reasoning": False}, **probes)
    for verb in ("generate", "label-pairs"):
        stage.cai(folder, verb, "bees.yaml", "-q")
    return folder


def audited(stage: Stage) -> Path:
    """Pairs that were handed to people, and what two of them filled in: mostly the labels, the second with ties of their own."""
    folder = stage.folder("audited", 120, label_pairs={"votes": 2})
    stage.cai(folder, "run", "bees.yaml", "-q")
    stage.cai(folder, "audit", "sample", "bees.yaml", "-n", "80")
    shards, data = [], folder / "data" / "bees"
    for shard in sorted((data / "debias" / "latest").glob("train-*")):
        shards += map(json.loads, shard.read_text("utf-8").splitlines())
    chosen = {row["id"]: row["chosen"] for row in shards}
    with open(folder / "filled.jsonl", "w", encoding="utf-8") as file:
        for number, row in enumerate(map(json.loads, (data / "audit" / "sample-0001.jsonl").read_text("utf-8").splitlines())):
            same = (row["response_1"] == chosen.get(row["id"], "")) == (number % 9 != 0)
            for person in ("ann", "ben"):
                said = "tie" if person == "ben" and number % 7 == 0 else "1" if same else "2"
                file.write(json.dumps(row | {"label": said, "annotator": person}) + "\n")
    return folder


def agreeing(stage: Stage) -> Path:
    """Answers of a model that agrees with whatever is believed, most of the time."""
    folder = stage.folder("agreeing")
    for name in ("beliefs.yaml", "beliefs.jsonl"):
        shutil.copy(SCREENS.parent.parent / "configs" / name, folder)
    stage.cai(folder, "run", "beliefs.yaml", "-q")
    return folder


SCENES: dict[str, Callable[[Stage], Path]] = {
    one.__name__: one for one in (fresh, priced, done, grown, damaged, slow, refused, running, killed, biased, audited, agreeing)
}  # fmt: skip


# Taking the pictures.


@contextmanager
def set_up() -> Iterator[Stage]:
    """A stage that is taken down whatever happens. Its own home: no cache and no setting of the person at the keyboard."""
    with tempfile.TemporaryDirectory(prefix="cai-screens-", ignore_cleanup_errors=True) as folder:
        stage = Stage(Path(folder).resolve())
        try:
            yield stage
        finally:
            for process in stage.processes:
                process.send_signal(signal.SIGKILL)
                process.wait()


def take(stage: Stage, capture: Capture, scene: Path, columns: int, colour: bool) -> None:
    """One capture at one width: a picture in colour, or plain text."""
    folder, kind = scene, "svg" if colour else "txt"
    if capture.alone:
        folder = stage.home / f"{capture.name}-{columns}-{kind}" / scene.name
        shutil.copytree(scene, folder, symlinks=True)
    environment = stage.environment | ({} if colour else {"NO_COLOR": "1"})
    with Terminal(columns, capture.rows, capture.command, folder, environment) as terminal:
        terminal.wait(capture.until or None)
        shown = decent(terminal.shown(colour), [folder.parent, stage.home])
    text = svg(columns, capture.command, shown) if colour else f"$ {capture.command}\n{shown}\n"
    (SCREENS / f"{capture.name}-{columns}.{kind}").write_text(text)


def decent(shown: str, homes: list[Path]) -> str:
    """The same, on a machine that could be anybody's. Raises: ValueError: something of this one is left"""
    for place in homes:
        shown = shown.replace(str(place), "/home/you")
    shown = shown.replace(str(BIN.parent), "/home/you/.venv")
    for name in (str(Path(__file__).parent.parent), socket.gethostname(), tempfile.gettempdir() + "/", str(Path.home()) + "/"):
        if name in shown:
            raise ValueError(f"{name!r} would be in the picture:\n{shown}")
    return shown


GALLERY = Path(__file__).parent / "displays.md"
HEAD = """\
# What it looks like

Every display on an 80-column terminal, from real runs on the simulated model; the same at 200 columns, and without colour. Made
by `make screenshots`.
"""


def gallery() -> str:
    """The page that shows all captures."""
    return HEAD + "".join(
        f"\n## {one.name}\n\n`{one.command}` ([200 columns](screens/{one.name}-200.svg), without colour:"
        f" [80](screens/{one.name}-80.txt), [200](screens/{one.name}-200.txt))\n\n"
        f"![{one.command}](screens/{one.name}-80.svg)\n"
        for one in CAPTURES
    )


def main(names: list[str]) -> int:
    GALLERY.write_text(gallery(), "utf-8")
    wanted = [capture for capture in CAPTURES if not names or capture.name in names]
    SCREENS.mkdir(exist_ok=True)
    failed = 0
    with set_up() as stage, ThreadPoolExecutor(AT_ONCE) as pool:
        scenes = {name: pool.submit(SCENES[name], stage) for name in dict.fromkeys(capture.scene for capture in wanted)}
        ready = {name: one.result() for name, one in scenes.items()}
        jobs = [
            (capture, pool.submit(take, stage, capture, ready[capture.scene], columns, colour))
            for capture in wanted for columns in WIDTHS for colour in (True, False)
        ]  # fmt: skip
        for capture, job in jobs:
            if error := job.exception():
                failed += 1
                print(f"{capture.name}: {error}", file=sys.stderr)  # noqa: T201
    print(f"{len(jobs) - failed} captures in {os.path.relpath(SCREENS)}")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
