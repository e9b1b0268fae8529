"""`cai show`: which rows it finds, by what they are, by number, by version, and in a run that has not ended."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outside import ROOT, SIMULATED, Cai, environment, rows_of, start, write_config, write_rows

PROMPTS = [{"prompt": f"How do I steal kite number {n}?", "id": f"k{n}", "place": "hill" if n % 2 else "beach"} for n in range(8)]
MORE: dict[str, Any] = {
    "prompts": {"path": "prompts.jsonl", "kind": "harmful", "keep": ["place"]}, "shards": {"rows": 2},
    "model": SIMULATED | {"world": {"empty_rate": 0.15}, "price": {"input": 10, "output": 10}}, "critique": {"principles": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished dataset with two versions of every stage."""
    folder = tmp_path_factory.mktemp("made")
    write_rows(folder / "prompts.jsonl", PROMPTS)
    for seed in (7, 8):
        write_config(folder, **MORE | {"seed": seed})
        process = start(folder, "run", "c.yaml", "-q")
        process.communicate()
        assert process.returncode in (0, 3)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


def rows(folder: Path, stage: str) -> list[dict[str, Any]]:
    return rows_of((folder / "out" / stage / "latest").resolve())


def found(cai: Cai, *arguments: object) -> dict[str, Any]:
    code, out, err = cai("show", "c.yaml", "--json", "-n", 1000, *arguments)
    assert code == 0, err
    return dict(json.loads(out))


def ids(cai: Cai, *arguments: object) -> list[str]:
    return [one["row"]["id"] for one in found(cai, *arguments)["rows"]]


# Filters


FILTERS: list[tuple[tuple[str, ...], str, Callable[[dict[str, Any]], bool]]] = [
    (("--where", "severity > .5"), "revise", lambda row: (row["rounds"][-1]["severity"] or 0) > 0.5),
    (("--where", "rounds=1 and changed"), "revise",
     lambda row: len(row["rounds"]) == 1 and row["response"] != row["initial_response"]),
    (("--where", "stopped_by in (rounds, unchanged)"), "revise", lambda row: row["stopped_by"] in ("rounds", "unchanged")),
    (("--where", "meta.place = hill", "--where", "sample=1"), "revise", lambda row: "hill" in row["meta"] and row["sample"] == 1),
    (("--where", "p_a > .5", "--stage", "debias"), "debias", lambda row: row["p_a"] > 0.5),
    (("--where", "principle ~ REFUSAL", "--stage", "label-pairs"), "label-pairs",
     lambda row: any("refusal" in vote["principle"] for vote in row["votes"])),
    (("--where", "len(response) > 200", "--stage", "generate"), "generate", lambda row: len(row["response"]) > 200),
    (("--flags", "inconsistent", "--stage", "label-pairs"), "label-pairs", lambda row: row["consistent"] is False),
    (("--kind", "harmful", "--stage", "generate"), "generate", lambda row: row["kind"] == "harmful"),
    (("--kind", "harmless", "--stage", "generate"), "generate", lambda row: row["kind"] == "harmless"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "stage", "holds"), FILTERS, ids=[" ".join(one[0]) for one in FILTERS])
def test_a_filter_finds_just_the_rows_that_satisfy_it(
    arguments: tuple[str, ...], stage: str, holds: Callable[[dict[str, Any]], bool], cai: Cai, folder: Path
) -> None:
    every = rows(folder, stage)
    told = found(cai, *arguments)
    wanted = [row["id"] for row in every if holds(row)]
    assert [one["row"]["id"] for one in told["rows"]] == wanted
    assert {one["stage"] for one in told["rows"]} <= {stage}
    assert (told["matched"], told["looked_at"]) == (len(wanted), len(every))


def test_the_filter_chooses_the_stage_whose_rows_can_answer(cai: Cai, folder: Path) -> None:
    assert {one["stage"] for one in found(cai, "--where", "margin > 0")["rows"]} == {"debias"}
    assert {one["stage"] for one in found(cai, "--where", "consistent")["rows"]} == {"label-pairs"}
    assert {one["stage"] for one in found(cai, "--where", "tokens_out > 0")["rows"]} == {"revise"}


def test_the_number_of_matches_is_told(cai: Cai, folder: Path) -> None:
    _, out, err = cai("show", "c.yaml", "--where", "tokens_out > 0", "-n", 2, "--offset", 1)
    there = rows(folder, "revise")
    assert re.findall(r"^(k\d-\d) · revise v0002-", out, re.MULTILINE) == [row["id"] for row in there[1:3]]
    said = rf"cai: {len(there)} of {len(there)} rows of revise v0002-\w+ match; shown: 2 to 3, next: --offset 3\n"
    assert re.fullmatch(said, err)
    code, out, err = cai("show", "c.yaml", "--where", "tokens_out > 1e9")
    assert (code, out) == (0, "")
    assert re.fullmatch(rf"cai: none of {len(there)} rows of revise v0002-\w+ matches\n", err)


def test_flags_by_itself_is_any_flag(cai: Cai, folder: Path) -> None:
    wanted = [row["id"] for row in rows(folder, "label-pairs") if row["consistent"] is False or row["preference"] == "tie"]
    for arguments in (("--stage", "label-pairs", "--flags"), ("--flags", "--stage", "label-pairs")):
        assert ids(cai, *arguments) == wanted


def test_rejects_by_reason_with_their_counts(cai: Cai, folder: Path) -> None:
    lost = [json.loads(line) for path in sorted((folder / "out").glob("*/v0002-*/_rejects.jsonl")) for line in path.open()]
    assert lost
    assert sorted(ids(cai, "--reason", "empty")) == sorted(row["id"] for row in lost)
    critique = [row["id"] for row in lost if row["stage"] == "critique"]
    assert ids(cai, "--rejects", "--where", "stage = critique") == critique
    out = cai("show", "c.yaml", "--rejects", "-n", 1000)[1]
    assert out.splitlines()[-1] == f"{len(lost)} rejected: {len(lost)} empty"
    assert cai("show", "c.yaml", "--rejects", "--where", "detail ~ nothing")[1:] == (
        "", f"cai: none of {len(lost)} rejects matches\n",
    )  # fmt: skip


# By number, by version


def test_every_row_is_reached_by_number(cai: Cai, folder: Path) -> None:
    there = [row["id"] for row in rows(folder, "generate")]
    pages = [ids(cai, "--stage", "generate", "-n", 3, "--offset", at) for at in range(0, len(there) + 3, 3)]
    assert [one for page in pages for one in page] == there
    assert pages[-1] == []


def test_an_older_version_is_shown_by_its_name_or_number(cai: Cai, folder: Path) -> None:
    old = next((folder / "out" / "revise").glob("v0001-*"))
    for name in (old.name, "v0001", "v1", "1"):
        (first,) = found(cai, "--version", name, "--stage", "revise", "-n", 1)["rows"]
        assert first["version"] == old.name
        assert first["row"] == rows_of(old)[0]
    assert {one["version"][:5] for one in found(cai, "k1", "--version", "v1")["rows"]} == {"v0001"}


# A run that goes on


@pytest.fixture
def stopped(cai: Cai, tmp_path: Path) -> Path:
    """A run that its budget has stopped in the second of four partitions."""
    write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    write_config(tmp_path, **MORE | {"limits": {"concurrency": 1}})
    for budget in range(3, 20):
        code = cai("run", "c.yaml", "-q", "--budget-usd", budget * 0.1)[0]
        if code == 75 and len(list(tmp_path.glob("out/.cai/staging/*/parts/*.json"))) == 1:
            return tmp_path
    raise AssertionError("no budget stops it there")


def test_partial_shows_the_whole_partitions_of_a_run_that_has_not_ended(cai: Cai, stopped: Path) -> None:
    code, out, err = cai("show", "c.yaml")
    assert (code, out) == (65, "")
    assert "cai show c.yaml --partial" in err
    code, out, err = cai("show", "c.yaml", "--partial", "--stage", "generate", "-n", 100)
    assert err.splitlines()[0] == "cai: 1 of 4 partitions is whole, 25% of the input"
    shown = re.findall(r"^(k\d-\d) · generate partial", out, re.MULTILINE)
    told = found(cai, "k1", "--partial")
    assert told["partitions"] == {"whole": 1, "of": 4}
    assert cai("show", "c.yaml", "k5", "--partial")[0] == 65
    assert cai("run", "c.yaml", "-q")[0] in (0, 3)
    assert shown == [row["id"] for row in rows(stopped, "generate") if row["prompt_id"] in ("k0", "k1")]
    code, out, err = cai("show", "c.yaml", "--partial")
    assert (code, out) == (0, "")
    assert err == "cai: nothing is staged: no run goes on; what is published is shown without --partial\n"


def test_what_is_half_written_or_taken_back_is_left_out(cai: Cai, stopped: Path) -> None:
    (job,) = (stopped / "out/.cai/staging").iterdir()
    (job / "parts" / "00001.json").write_bytes(b'{"generate"')
    (job / "generate" / "train-00001-of-00004.jsonl").write_bytes(b'{"id":')
    assert found(cai, "--partial")["partitions"] == {"whole": 1, "of": 4}
    next((job / "revise").glob("train-00000-*")).unlink()
    assert found(cai, "--partial", "--stage", "revise")["rows"] == []
    assert found(cai, "--partial", "--stage", "generate")["rows"] != []


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--flags", "refusd"), "there is no flag 'refusd'", "did you mean 'refused'?"),
        (("--reason", "emty"), "no row was rejected for 'emty'", "did you mean 'empty'?"),
        (("--version", "v0009"), "out holds no version 'v0009'", "v000"),
        (("--stage", "revis"), "there is no stage 'revis'", "did you mean 'revise'?"),
        (("--partial", "--version", "v1"), "--partial is about no version yet", "leave one"),
        (("--stage", "debias", "--where", "severity > .5"), "rows of debias have no severity", "p_a, "),
        (("--where", "severity > .5 and p_a > .5"), "no stage here has rows with p_a and severity", "severity: critique, revise"),
        (("--rejects", "--where", "severity > .5"), "rows of rejects have no severity", "reason"),
        (("--prompt", "critique", "--where", "severity > .5"), "--prompt shows what is asked", "leave --where out"),
    ],
)
def test_a_mistake_is_told_with_what_to_type(arguments: tuple[str, ...], message: str, hint: str, cai: Cai, folder: Path) -> None:
    code, out, err = cai("show", "c.yaml", *arguments)
    assert code in (2, 65)
    assert out == ""
    said, advised = err.splitlines()
    assert message in said
    assert hint in advised


# On a terminal


def on_a_terminal(folder: Path, *arguments: str, columns: int = 80, lines: int = 24, **env: str) -> str:
    """What `cai` writes on a terminal of that size; a pager is told to leave at once by `env`."""
    leader, follower = pty.openpty()
    size = {"COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm-256color", **env}
    process = subprocess.Popen(
        [sys.executable, "-m", "cai_cli", *arguments], cwd=folder, env=environment(folder, **size), stdin=follower,
        stdout=follower, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(follower)
    read: list[bytes] = []
    reader = threading.Thread(target=_drain, args=(leader, read))
    reader.start()
    assert process.wait(60) == 0
    reader.join(10)
    os.close(leader)
    return b"".join(read).decode().replace("\r\n", "\n")


def _drain(leader: int, into: list[bytes]) -> None:
    try:
        while data := os.read(leader, 65536):
            into.append(data)
    except OSError:  # the other side is closed
        return


def test_what_is_longer_than_the_terminal_goes_through_the_pager(folder: Path) -> None:
    pager = folder / "pager.sh"
    pager.write_text("#!/bin/sh\nprintf 'PAGED\\n'; cat\n")
    pager.chmod(0o755)
    long, short = ("show", "c.yaml", "-n", "2"), ("show", "c.yaml", "--rejects", "-n", "1")
    assert on_a_terminal(folder, *long, PAGER=str(pager)).startswith("PAGED\n")
    assert "PAGED" not in on_a_terminal(folder, *short, PAGER=str(pager))
    assert "PAGED" not in on_a_terminal(folder, *long, "--no-pager", PAGER=str(pager))
    assert "PAGED" not in on_a_terminal(folder, *long, PAGER=str(pager), TERM="dumb")
    assert on_a_terminal(folder, *long, PAGER="cat") == on_a_terminal(folder, *long, PAGER="not-there")


def test_a_pager_that_is_left_early_ends_it_quietly(folder: Path) -> None:
    assert "k0" in on_a_terminal(folder, "show", "c.yaml", "-n", "1000", PAGER="head -3")


def test_a_pipe_gets_no_pager(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cai_cli", "show", "c.yaml"], cwd=folder, capture_output=True, check=True,
        env=environment(folder, PAGER="false", TERM="xterm", PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    assert b" \xc2\xb7 revise v0002-" in done.stdout
    assert b"\x1b" not in done.stdout


def test_a_wide_terminal_shows_both_texts_side_by_side(folder: Path) -> None:
    wide = on_a_terminal(folder, "show", "c.yaml", "-n", "8", "--where", "changed", columns=200, PAGER="", NO_COLOR="1")
    narrow = on_a_terminal(folder, "show", "c.yaml", "-n", "8", "--where", "changed", columns=159, PAGER="", NO_COLOR="1")
    assert re.search(r"the text before {20,}revision", wide)
    assert "the text before" not in narrow
    assert "[-" in wide
    assert "[-" in narrow
    assert max(len(line) for line in re.sub(r"\x1b\[[\d;]*m", "", wide).splitlines()) <= 200


def test_partial_beside_a_run_that_is_writing_is_never_an_error(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"How do I fold kite {n}?", "id": f"k{n}"} for n in range(120)])
    write_config(tmp_path, shards={"rows": 4})
    process = start(tmp_path, "run", "c.yaml", "-q", "--concurrency", 2)
    seen: list[list[dict[str, Any]]] = []
    while process.poll() is None:
        for arguments in (("--partial",), ("--partial", "--where", "tokens_out > 0"), ("--partial", "--rejects")):
            code, out, err = cai("show", "c.yaml", "--json", "-n", 1000, *arguments)
            assert code == 0, err
            seen.append(json.loads(out)["rows"])
    process.communicate()
    assert process.returncode == 0
    made = {
        (stage, row["id"]): row for stage in ("generate", "critique", "revise", "label-pairs") for row in rows(tmp_path, stage)
    }
    shown = [(one["stage"], one["row"]) for look in seen for one in look if one["stage"] != "debias"]
    assert shown
    assert all(made[stage, row["id"]] == row for stage, row in shown)


def test_near_misses_of_kinds_and_versions_and_what_an_offset_passes(cai: Cai, folder: Path) -> None:
    kind = rows(folder, "revise")[0]["kind"]
    code, _, err = cai("show", "c.yaml", "--kind", f"{kind}l")
    assert (code, f"hint: did you mean '{kind}'?" in err) == (0, True)
    code, out, err = cai("show", "c.yaml", "--offset", 50, "k1")
    assert (code, out) == (0, "")
    assert "of 'k1'; --offset 50 passes over all of them" in err
    for number in range(3, 38):
        (folder / f"out/generate/v{number:04d}-0000000a").mkdir()
        shutil.copy((folder / "out/generate/latest/_manifest.json"), folder / f"out/generate/v{number:04d}-0000000a")
    _, _, err = cai("show", "c.yaml", "--version", 99)
    assert "hint: there are: v0033, v0034, v0035, v0036, v0037 and 32 more\n" in err


def test_input_that_could_not_be_used_is_of_the_first_stage_everywhere(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Kites?"}\n{"prompt": 5}\n')
    write_config(tmp_path, limits={"max_reject_rate": 1.0})
    assert cai("run", "c.yaml", "-q")[0] == 0
    (row,) = found(cai, "--rejects", "--where", "stage = generate")["rows"]
    assert (row["stage"], row["row"]["stage"]) == ("generate", "generate")
    assert found(cai, "--rejects", "--where", "stage = input")["rows"] == []


def test_no_heading_is_filled_with_lines(cai: Cai, folder: Path) -> None:
    assert not set("─━═│") & set(cai("show", "c.yaml")[1] + cai("why", "c.yaml", rows(folder, "generate")[0]["id"])[1])
