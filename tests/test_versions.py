"""Versions, `latest`, the dataset cards and the lock: what a reader sees, at every moment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from cai_cli.engine import versions
from cai_cli.engine.card import BEGIN, END, update_card, version_card
from cai_cli.engine.lock import Held, locked
from cai_cli.engine.shards import as_line, described
from cai_cli.engine.versions import MANIFEST, Version
from cai_cli.errors import Exit, Fix
from cai_cli.records import Chain, Critique, Pair, Preference, Round, Sample, Score, Turn, Vote, features

TURNS = (Turn(role="user", content="question"),)


def sample(n: int) -> Sample:
    """A row with every null that a sample can have."""
    return Sample(id=f"p{n}-0", prompt_id=f"p{n}", messages=TURNS, prompt="question", response="answer")


def publish(output: Path, stage: str, number: int, shards: Sequence[Sequence[Any]], rejects: int = 0) -> Version:
    """A version with these shards, by hand."""
    shape = type(shards[0][0])
    folder = output / ".cai" / "staged"
    folder.mkdir(parents=True)
    files = []
    for shard, rows in enumerate(shards):
        data, name = b"".join(map(as_line, rows)), f"train-{shard:05d}-of-{len(shards):05d}.jsonl"
        (folder / name).write_bytes(data)
        files.append(described(name, data, len(rows), shard))
    (folder / "README.md").write_bytes(version_card(stage, files, features(shape)))
    manifest = {
        "schema": 1, "fingerprint": f"{number:064x}", "shards": len(shards), "files": files, "rows": sum(map(len, shards)),
        "rejected": {"empty": rejects} if rejects else {}, "filtered": {},
    }  # fmt: skip
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest))
    return versions.publish(folder, output, stage, f"v{number:04d}-{number:08x}")


# Versions


def test_latest_is_a_relative_link_that_is_replaced_in_one_step(tmp_path: Path) -> None:
    first = publish(tmp_path, "generate", 1, [[sample(1)]])
    assert versions.latest(tmp_path, "generate") is None, "published, but nobody was told yet"
    versions.point_latest(first)
    versions.point_latest(publish(tmp_path, "generate", 2, [[sample(1)], [sample(2)]]))
    link = tmp_path / "generate" / "latest"
    assert str(link.readlink()) == "v0002-00000002"
    newest = versions.latest(tmp_path, "generate")
    assert newest is not None
    assert (newest.name, newest.number, newest.shards) == ("v0002-00000002", 2, 2)
    assert sorted(path.name for path in link.parent.iterdir()) == ["latest", "v0001-00000001", "v0002-00000002"]


def test_latest_is_never_missing_while_it_changes(tmp_path: Path) -> None:
    """A reader in another process opens `latest` as fast as it can."""
    two = [publish(tmp_path, "generate", n, [[sample(1)]]) for n in (1, 2)]
    versions.point_latest(two[0])
    code = """
        import sys
        print("ready", flush=True)
        for n in range(3000):
            open(sys.argv[1] + "/generate/latest/_manifest.json").close()
    """
    reader = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert reader.stdout is not None
    reader.stdout.readline()
    while reader.poll() is None:
        versions.point_latest(two[0])
        versions.point_latest(two[1])
    assert reader.returncode == 0, reader.communicate()


def test_versions_are_listed_by_number_not_by_spelling(tmp_path: Path) -> None:
    for number in (9999, 10000, 2):
        publish(tmp_path, "generate", number, [[sample(1)]])
    (tmp_path / "generate" / ".pruned-v0001-00000001").mkdir()
    (tmp_path / "generate" / "notes").mkdir()
    assert [version.number for version in versions.all_of(tmp_path, "generate")] == [2, 9999, 10000]
    assert versions.next_number(tmp_path, "generate") == 10001
    assert versions.next_number(tmp_path, "revise") == 1


@pytest.mark.parametrize(("keep", "left"), [(1, [2, 5]), (2, [2, 4, 5]), (9, [1, 2, 3, 4, 5])])
def test_prune_keeps_the_newest_and_whatever_latest_names(tmp_path: Path, keep: int, left: list[int]) -> None:
    made = [publish(tmp_path, "generate", number, [[sample(1)]]) for number in range(1, 6)]
    versions.point_latest(made[1])
    gone = versions.prune(tmp_path, "generate", keep)
    assert [version.number for version in versions.all_of(tmp_path, "generate")] == left
    assert [versions.number_of(path.name) for path in gone] == [number for number in range(1, 6) if number not in left]
    assert versions.latest(tmp_path, "generate") == made[1]


def test_prune_ends_what_a_killed_prune_began(tmp_path: Path) -> None:
    versions.point_latest(publish(tmp_path, "generate", 2, [[sample(1)]]))
    left = tmp_path / "generate" / ".pruned-v0001-00000001"
    left.mkdir()
    versions.prune(tmp_path, "generate", 1)
    assert not left.exists()


def test_files_of_one_shard_or_of_all(tmp_path: Path) -> None:
    version = publish(tmp_path, "generate", 1, [[sample(1)], [sample(2)]])
    assert [path.name for path in version.files(1)] == ["train-00001-of-00002.jsonl"]
    assert len(version.files()) == 2


@pytest.mark.parametrize("manifest", [None, b"{", b'{"schema": 2}'])
def test_a_folder_that_is_no_version_is_refused_by_name(tmp_path: Path, manifest: bytes | None) -> None:
    folder = tmp_path / "v0001-00000001"
    folder.mkdir()
    if manifest is not None:
        (folder / MANIFEST).write_bytes(manifest)
    with pytest.raises(Fix, match="v0001-00000001") as caught:
        versions.read(folder)
    assert caught.value.code is Exit.INPUT
    assert caught.value.hint


def test_a_fingerprint_depends_on_values_and_not_on_the_order_of_keys() -> None:
    assert versions.fingerprint({"a": 1, "b": [2]}) == versions.fingerprint({"b": [2], "a": 1})
    assert versions.fingerprint({"a": 1}) != versions.fingerprint({"a": "1"})


# Cards


def card(output: Path, *made: Version) -> str:
    update_card(
        output,
        "harmless",
        {version.path.parent.name: version for version in made},
        {"generate": features(Sample), "revise": features(Chain)},
    )
    return (output / "README.md").read_text()


def front_of(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_names_every_stage_and_its_newest_version(tmp_path: Path) -> None:
    text = card(tmp_path, publish(tmp_path, "generate", 1, [[sample(1)]], rejects=3))
    (config,) = front_of(text)["configs"]
    checksum = config.pop("description")
    assert re.fullmatch("content [0-9a-f]{32}", checksum)
    assert config == {
        "config_name": "generate",
        "data_files": [{"split": "train", "path": "generate/v0001-00000001/train-*.jsonl"}],
    }
    assert "| `generate` | `v0001-00000001` | 1 | `train` 1 |" in text
    text = card(tmp_path, publish(tmp_path, "generate", 2, [[sample(2)]]))
    assert "v0001" not in text
    assert front_of(text)["configs"][0]["description"] != checksum  # what `datasets` names its cache after


def test_the_same_versions_give_the_same_card(tmp_path: Path) -> None:
    version = publish(tmp_path, "generate", 1, [[sample(1)]])
    assert card(tmp_path, version) == card(tmp_path, version) == card(tmp_path, version)


def test_hand_edits_and_other_keys_survive(tmp_path: Path) -> None:
    version = publish(tmp_path, "generate", 1, [[sample(1)]])
    text = card(tmp_path, version)
    edited = text.replace("---\n", "---\nlicense: mit\ntags: [rlaif, 'no']\n", 1).replace(BEGIN, "Before, by hand: é.\n" + BEGIN)
    edited = edited.replace("| stage |", "| scribbled |").replace(END, END + "\n\nAfter, by hand.\n")
    (tmp_path / "README.md").write_text(edited)
    again = card(tmp_path, version)
    assert "Before, by hand: é.\n" + BEGIN in again
    assert again.endswith(END + "\n\nAfter, by hand.\n\n")
    assert "| scribbled |" not in again
    assert (front_of(again)["license"], front_of(again)["tags"]) == ("mit", ["rlaif", "no"])
    assert card(tmp_path, version) == again


def test_a_card_that_somebody_else_wrote_gets_our_part_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n\nText.\n")
    text = card(tmp_path, publish(tmp_path, "generate", 1, [[sample(1)]]))
    assert "# Mine\n\nText.\n" + BEGIN in text
    assert front_of(text)["license"] == "mit"


@pytest.mark.parametrize(
    ("front", "where"),
    [("license: mit\ntags: [a\n", "README.md:[34]: the YAML"), ("- a\n- b\n", "README.md: the YAML .* keys and values")],
)
def test_a_cards_broken_yaml_is_named_and_left_as_it_is(tmp_path: Path, front: str, where: str) -> None:
    broken = f"---\n{front}---\n# Mine\n"
    (tmp_path / "README.md").write_text(broken)
    with pytest.raises(Fix, match=where) as caught:
        card(tmp_path, publish(tmp_path, "generate", 1, [[sample(1)]]))
    assert "run the same command again" in caught.value.hint
    assert (tmp_path / "README.md").read_text() == broken


# What `datasets` makes of it

PAIR: dict[str, Any] = {"messages": TURNS, "prompt": "question", "response_a": "", "response_b": "1"}
VOTE = Vote(labeler="main", principle="p", p_a=0.7, confidence=0.5, rationale="2024-01-01", verdict="a")
CRITIQUE = Critique(principle="p", category="c", critique="1", severity=0.5, suggestions=("s",), quotes=("q",))
ROUND = Round(round=1, critiques=(CRITIQUE,), severity=0.5, primary_issues=("p",), quality=1.0, revision="r", accepted=True)
LABELED: dict[str, Any] = {
    "id": "p2-0-1",
    "prompt_id": "p2",
    "votes": (VOTE, Vote(labeler="main")),
    "p_a": 0.7,
    "preference": "a",
}
SCORES: dict[str, Any] = {"scores_a": (Score(criterion="c", score=7.5),), "scores_b": (Score(criterion="c"),), "gold": "a"}
DATED: dict[str, Any] = {"id": "p2-0", "prompt_id": "p2", "messages": TURNS, "prompt": "2024-01-01", "response": "12:30:00"}
AWKWARD: dict[str, list[Any]] = {  # the first row of each holds every empty list and every null, the second none, and dates
    "generate": [sample(1), Sample(**DATED, tokens_in=1, tokens_out=2, refused=True)],
    "critique": [Chain.begin(sample(1)), Chain(**DATED, initial_response="x", rounds=(ROUND, Round(round=2, critiques=())))],
    "label-pairs": [
        Pair(id="p1-0-1", prompt_id="p1", **PAIR),
        Pair(**PAIR, **LABELED, **SCORES, confidence=0.7, consistent=True),
    ],
    "debias": [
        Preference(id="p1-0-1", prompt_id="p1", **PAIR),
        Preference(**PAIR, **LABELED, p_a_raw=0.8, weight=0.4, flags=("length",), chosen="a", margin=1.0),
    ],
}


@pytest.mark.parametrize("stage", AWKWARD)
def test_rows_load_by_both_paths_with_the_types_that_were_declared(tmp_path: Path, stage: str) -> None:
    """The first shard alone would be typed wrongly: columns of nulls, lists of nothing.

    Text that looks like a date stays text as long as one text in its column and shard does not: a shard of nothing but
    dates is read as timestamps by `datasets` before it looks at the declared features.
    """
    import datasets

    empty, full = AWKWARD[stage]
    rows = [empty, full, empty]
    version = publish(tmp_path, stage, 1, [rows[:1], rows[1:]])
    versions.point_latest(version)
    update_card(tmp_path, "harmless", {stage: version}, {stage: features(type(rows[0]))})
    expected = [orjson.loads(orjson.dumps(row)) for row in rows]
    by_card = datasets.load_dataset(str(tmp_path), stage, cache_dir=str(tmp_path / "cache"))
    by_path = datasets.load_dataset(str(tmp_path / stage / "latest"), cache_dir=str(tmp_path / "cache"))
    streamed = datasets.load_dataset(str(tmp_path), stage, streaming=True)
    assert list(by_card["train"]) == list(by_path["train"]) == list(streamed["train"]) == expected
    assert by_card["train"].features == by_path["train"].features == streamed["train"].features


# The lock

HOLDER = """
    import sys, time
    from pathlib import Path
    from cai_cli.engine.lock import locked
    with locked(Path(sys.argv[1]), "fail", "cai run c.yaml"):
        print("held", flush=True)
        time.sleep(60)
"""


def holder_of(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(HOLDER), str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_told_who_holds_the_output_and_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".cai" / "lock"
    holder = holder_of(path)
    try:
        for if_locked in ("fail", "skip"):
            with (
                pytest.raises(Held, match=rf"process {holder.pid} on .* since .* \(cai run c.yaml\)$") as caught,
                locked(path, if_locked, "cai"),
            ):  # type: ignore[arg-type]
                pass
        assert caught.value.code is Exit.STOPPED
        holder.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(Held, match=rf"`kill -CONT {holder.pid}`"), locked(path, "fail", "cai"):
            pass
    finally:
        holder.kill()
        holder.wait()
    with locked(path, "fail", "cai"):
        assert orjson.loads(path.read_bytes())["pid"] == os.getpid()
    assert path.stat().st_mode & 0o777 == 0o600


def test_waiting_for_the_lock_ends_when_its_holder_does(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = holder_of(path)
    waiter = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER).replace('"fail"', '"wait"'), str(path)], stdout=subprocess.PIPE, text=True
    )
    holder.kill()
    holder.wait()
    try:
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "held\n"
    finally:
        waiter.kill()
        waiter.wait()
