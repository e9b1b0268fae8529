"""Prompts are surveyed once and read again from what was noted: the same rows, the same fingerprint, nothing of what is done."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import jsonl
from room import no_room

from cai_cli.engine.feed import Feed, alone, from_reader
from cai_cli.engine.formats import CHUNK, numbered_lines
from cai_cli.engine.inputs import read_prompts
from cai_cli.engine.spool import PIECE
from cai_cli.settings import PromptsSection

LAW = settings(deadline=None, max_examples=30)
PINNED = "fbb8724f6f44d0855fd9108a169afcbe5924bf54a603bf72447caa3d830ea9cc"
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


def feed(folder: Path, size: int, spooled: bool, limit: int | None = None, **options: object) -> Feed:
    section = PromptsSection.model_validate({"path": "p.jsonl", **options})
    into = folder if spooled else None
    return from_reader(lambda: alone(read_prompts(section, folder, 7)), size, limit, "p.jsonl", check=False, folder=into)


@LAW
@given(st.lists(texts, min_size=1, max_size=12), st.integers(1, 5), st.none() | st.integers(1, 8), st.booleans())
def test_the_rows_and_the_fingerprint_are_those_of_the_input(
    scratch: Path, prompts: list[str], size: int, limit: int | None, shuffle: bool
) -> None:
    (scratch / "p.jsonl").write_bytes(jsonl(*({"prompt": text, "k": text} for text in prompts)))
    plain, noted = (feed(scratch, size, spooled, limit, shuffle=shuffle, keep=["k"]) for spooled in (False, True))
    assert noted.fingerprint == plain.fingerprint
    assert (noted.prompts, noted.shards) == (plain.prompts, plain.shards)
    assert list(noted.units()) == list(plain.units()) == list(noted.left(lambda shard: False))


@LAW
@given(st.integers(1, 12), st.integers(1, 5), st.sets(st.integers(0, 11)))
def test_of_partitions_that_are_done_only_the_number_comes(scratch: Path, count: int, size: int, done: set[int]) -> None:
    (scratch / "p.jsonl").write_bytes(jsonl(*({"prompt": f"question {n}"} for n in range(count))))
    noted = feed(scratch, size, True)
    wanted = [(unit.shard, () if unit.shard in done else unit.rows) for unit in noted.units()]
    assert [tuple(unit) for unit in noted.left(done.__contains__)] == wanted


def test_a_run_keeps_to_the_input_that_was_counted(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(jsonl({"prompt": "before"}, {"prompt": "too"}))
    noted = feed(tmp_path, 10, True)
    (tmp_path / "p.jsonl").write_bytes(jsonl({"prompt": "after"}))
    assert [unit.rows[0].text for unit in noted.units()] == ["before", "too"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl"]  # what was noted has no name


def test_long_prompts_pass_whole_through_several_pieces(tmp_path: Path) -> None:
    long = ["a" * (PIECE - 3), "b" * (2 * PIECE), "c", "d" * PIECE]
    (tmp_path / "p.jsonl").write_bytes(jsonl(*({"prompt": text} for text in long)))
    assert [unit.rows[0].text for unit in feed(tmp_path, 3, True).units()] == long


def test_where_there_is_no_room_for_them_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(jsonl({"prompt": "a" * 2 * PIECE}))
    with no_room(), pytest.raises(OSError, match="too large") as caught:
        feed(tmp_path, 3, True)
    assert caught.value.filename == str(tmp_path)


def test_the_fingerprint_of_an_input_is_the_same_in_every_release(tmp_path: Path) -> None:
    """If this changes, every version that anybody has is made anew."""
    rows = [{"prompt": "a\tb \u00e9 \u2028"}, {"prompt": "a"}, {"prompt": "a", "id": "own"}, {"messages": []}, {"prompt": "a"}]
    (tmp_path / "p.jsonl").write_bytes(jsonl(*rows))
    assert {feed(tmp_path, 2, spooled, kind="harmful").fingerprint for spooled in (False, True)} == {PINNED}


@pytest.mark.parametrize("length", [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 7])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_are_cut_at_their_ends_wherever_a_piece_of_the_file_ends(length: int, end: bytes) -> None:
    lines = [b"x" * length, b"", b" \t", b"y", b"z" * (length + 1), b"\x0b", b"last"]
    wanted = [(1, lines[0]), (4, b"y"), (5, lines[4]), (7, b"last")]
    assert list(numbered_lines(io.BytesIO(end.join(lines)))) == wanted
    assert list(numbered_lines(io.BytesIO(end.join(lines) + end))) == wanted
    assert list(numbered_lines(io.BytesIO(b"\xef\xbb\xbf" + end.join(lines)))) == wanted
    assert next(numbered_lines(io.BytesIO(end.join(lines)), 4)) == (5, lines[0])
