"""Every row of a file comes out once, whatever the format; what cannot be used is named by file, line and reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import jsonl, read, refused, texts

from cai_cli.engine.formats import CHUNK, LINE_LIMIT
from cai_cli.engine.inputs import read_prompts
from cai_cli.errors import Exit, Fix
from cai_cli.records import Prompt, Rejected
from cai_cli.settings import PromptsSection

LAW = settings(deadline=None, max_examples=30)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PROMPTS = st.lists(st.fixed_dictionaries({"prompt": TEXT.filter(str.strip)}, optional={"topic": TEXT}), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


# Laws


@LAW
@given(PROMPTS)
def test_what_was_written_as_json_reads_back_whatever_holds_it(scratch: Path, rows: list[dict[str, str]]) -> None:
    lines, whole = jsonl(*rows), json.dumps(rows, indent=1).encode()
    files = {
        "p.jsonl": lines, "p.ndjson": b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n\r\n"), "p.json": whole, "unnamed": lines,
        "q.json": lines, "p.jsonl.gz": gzip.compress(lines), "p.json.zst": zstandard.compress(whole),
    }  # fmt: skip
    for name, data in files.items():
        assert texts(read(scratch, name, data)) == [row["prompt"] for row in rows], name


@LAW
@given(PROMPTS)
def test_csv_and_parquet_read_back(scratch: Path, rows: list[dict[str, str]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    wanted = [row["prompt"] for row in rows]
    for name, dialect in (("p.csv", "excel"), ("p.tsv", "excel-tab")):
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, ["prompt", "topic"], dialect=dialect)
        writer.writeheader()
        writer.writerows(rows)
        assert texts(read(scratch, name, table.getvalue().encode())) == wanted, name
    sink = io.BytesIO()
    parquet.write_table(pa.table({"prompt": wanted}), sink, row_group_size=2)
    assert texts(read(scratch, "p.parquet", sink.getvalue())) == wanted
    assert texts(read(scratch, "p.parquet.gz", gzip.compress(sink.getvalue()))) == wanted


@LAW
@given(
    st.lists(
        st.binary(max_size=20) | st.sampled_from([b'{"prompt": "a"}', b'{"prompt": "', b"\r", b"  ", b'{"prompt": NaN}']),
        max_size=8,
    )
)
def test_every_line_that_is_not_blank_is_accepted_or_rejected(scratch: Path, pieces: list[bytes]) -> None:
    data = b'{"prompt": "first"}\n' + b"\n".join(pieces)
    filled = [number for number, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
    for name in ("any.jsonl", "any.txt"):
        rows = read(scratch, name, data)
        assert len(rows) == len(filled)
        assert all(row.where == f"{name}:{number}" for row, number in zip(rows, filled, strict=True) if isinstance(row, Rejected))


@LAW
@given(
    st.lists(
        st.recursive(TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=6),
        min_size=1,
    )
)
def test_a_json_list_is_cut_where_its_elements_end(scratch: Path, values: list[Any]) -> None:
    rows = [{"prompt": "p", "value": value} for value in values]
    read_back = read(scratch, "list.json", json.dumps(rows, ensure_ascii=False, indent=2).encode(), keep=["value"])
    assert [json.loads(row.meta)["value"] for row in read_back if isinstance(row, Prompt)] == values


# Rows that cannot be used


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "\xff"}', "bad_utf8"),
        (b'{"prompt": "\xed\xa0\x80"}', "bad_utf8"),
        (rb'{"prompt": "\ud800"}', "lone_surrogate"),
        (rb'{"prompt": "a", "\udc00": 1}', "lone_surrogate"),
        (b'{"prompt": "a", "x": NaN}', "nan_or_infinity"),
        (b'{"prompt": "a", "x": -Infinity}', "nan_or_infinity"),
        (b'{"prompt": "a", "x": 1e999}', "nan_or_infinity"),
        (b'{"prompt": "a"', "not_json"),
        (b"prompt", "not_json"),
        (b'{"prompt": "NaN \x01"}', "not_json"),
        (b'{"prompt": ' + b"[" * 2000 + b"]" * 2000 + b"}", "too_deep"),
        (b'{"prompt": ' + b"[" * 200_000, "too_deep"),
        (b'["prompt"]', "not_an_object"),
        (b'{"promt": "a"}', "missing_column"),
        (b'{"prompt": 1}', "wrong_type"),
        (b'{"prompt": null}', "wrong_type"),
        (b'{"prompt": ["a"]}', "wrong_type"),
        (b'{"prompt": [{"role": "user", "content": null}]}', "wrong_type"),
        (b'{"prompt": [{"role": "tool", "content": "a"}]}', "wrong_type"),
        (b'{"prompt": [{"role": "user"}]}', "missing_column"),
        (b'{"prompt": "a", "id": {}}', "wrong_type"),
        (b'{"prompt": " \\n\\u00a0"}', "empty_prompt"),
        (b'{"messages": []}', "empty_prompt"),
        (b'{"messages": [{"role": "user", "content": " "}]}', "empty_prompt"),
        (b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}', "ends_with_assistant"),
        (b'{"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}', "system_in_messages"),
        (b'{"prompt": "' + b"x" * LINE_LIMIT + b'"}', "line_too_long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_row_is_rejected_by_name_and_the_next_one_is_read(tmp_path: Path, line: bytes, reason: str) -> None:
    lines = read(tmp_path, "p.jsonl", b"\n" + line + b'\r\n{"prompt": "next"}')
    assert texts(lines) == [reason, "next"]
    bad = lines[0]
    assert isinstance(bad, Rejected)
    assert (bad.stage, bad.where) == ("input", "p.jsonl:2")
    assert bad.detail
    assert bad.row == line.decode("utf-8", "backslashreplace")[:2000]
    in_list = read(tmp_path, "p.json", b"[\n" + line + b',\n{"prompt": "next"}]') if line.endswith(b"}") else lines
    assert texts(in_list) == [reason, "next"]
    assert in_list[0] == Rejected(**{**asdict(bad), "where": getattr(in_list[0], "where", "")})


def test_nesting_up_to_what_the_parser_takes_is_no_reason_to_reject(tmp_path: Path) -> None:
    deep = b'{"prompt": "a", "brackets": "' + b"[" * 5000 + b'", "x": ' + b"[" * 1000 + b"]" * 1000 + b"}"
    assert texts(read(tmp_path, "p.jsonl", deep)) == ["a"]
    assert texts(read(tmp_path, "q.jsonl", deep + b"," + b'\n{"prompt": "b"}')) == ["not_json", "b"]


def test_only_a_line_feed_ends_a_line_and_text_is_kept_as_it_is(tmp_path: Path) -> None:
    assert texts(read(tmp_path, "p.txt", "\ufeffone\u2028two \x0b\x85\r\n\r\n  {x}\t$y {{z}}".encode())) == [
        "one\u2028two \x0b\x85",
        "  {x}\t$y {{z}}",
    ]
    assert texts(read(tmp_path, "q.txt", b"good\n\xff\n\xc2\xa0")) == ["good", "bad_utf8", "empty_prompt"]
    assert texts(read(tmp_path, "p.jsonl", '{"prompt": " a\u2028b\\r\\n"}'.encode())) == [" a\u2028b\r\n"]


def test_a_csv_row_that_does_not_fit_its_header_is_rejected_where_it_begins(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfprompt,topic\n"two\nlines",x\n\nsplit, here,x\n"a"b,x\n\xff,x\nlast,x\n"open,x\nend,x\n'
    rows = read(tmp_path, "p.csv", data)
    assert texts(rows) == ["two\nlines", "not_csv", "not_csv", "bad_utf8", "last", "not_csv"]
    assert [row.where for row in rows if isinstance(row, Rejected)] == ["p.csv:5", "p.csv:6", "p.csv:7", "p.csv:9"]
    refused(tmp_path, "q.csv", b"prompt,prompt\na,b\n")


def test_a_csv_goes_on_after_a_row_that_is_too_long(tmp_path: Path) -> None:
    long = b"x" * LINE_LIMIT
    data = b'prompt\n"a"\n"' + long + b'\n""second line"\n"' + long + b'"\n"b"\n"' + long[1:] + b'\nx\ny"\nc\n' + long + b'0"'
    assert texts(read(tmp_path, "p.csv", data)) == [
        "a",
        "line_too_long",
        "line_too_long",
        "b",
        "line_too_long",
        "c",
        "line_too_long",
    ]


def test_a_parquet_row_that_is_not_utf8_is_rejected_alone(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    _, offsets, content = pa.array([b"a", b"\xff", b"b"], pa.binary()).buffers()
    sink = io.BytesIO()
    parquet.write_table(pa.table({"prompt": pa.StringArray.from_buffers(3, offsets, content)}), sink)
    rows = read(tmp_path, "p.parquet", sink.getvalue())
    assert texts(rows) == ["a", "bad_utf8", "b"]
    assert [row.where for row in rows if isinstance(row, Rejected)] == ["p.parquet:2"]


def test_marks_in_a_json_list_may_fall_on_the_end_of_a_chunk(tmp_path: Path) -> None:
    for shift in range(6):
        rows = [{"prompt": "x" * (CHUNK - 20 + shift) + '"\\,]}'}, {"prompt": "b"}]
        assert texts(read(tmp_path, "p.json", json.dumps(rows).encode())) == [row["prompt"] for row in rows]


# Input that cannot be used at all


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "txt", "jsonl.gz", "jsonl.zst"])
def test_a_file_without_rows_is_refused(tmp_path: Path, ending: str) -> None:
    assert "no rows" in refused(tmp_path, f"p.{ending}", b"").message
    blank = {"json": b" [ ] ", "csv": b"prompt\n", "jsonl.gz": gzip.compress(b"\n"), "jsonl.zst": zstandard.compress(b"\n")}
    assert "no rows" in refused(tmp_path, f"p.{ending}", blank.get(ending, b" \n\r\n")).message


def test_what_was_cut_off_or_damaged_is_refused(tmp_path: Path) -> None:
    lines = jsonl(*({"prompt": f"number {number}"} for number in range(2000)))
    for name, whole in (("p.jsonl.gz", gzip.compress(lines)), ("p.jsonl.zst", zstandard.compress(lines))):
        assert len(read(tmp_path, name, whole + whole)) == 4000, "two members"
        for data in (whole[:-3], whole[: len(whole) // 2], b"\0" * 9 + whole, whole + whole[:-3]):
            assert "cut off or damaged" in refused(tmp_path, name, data).message
    assert "cut off" in refused(tmp_path, "p.json", b'[{"prompt": "a"}, {"prompt": "b"').message
    assert "p.json:2" in refused(tmp_path, "p.json", b'[{"prompt": "a"}]\n[]').message
    refused(tmp_path, "p.json", b'"a"')
    refused(tmp_path, "p.parquet", b"PAR1 and nothing more")


def test_zstd_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert refused(tmp_path, "p.txt.zst", b"\x28\xb5\x2f\xfd").hint == "pip install zstandard"


def test_a_missing_file_and_a_folder_of_other_things_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("absent.jsonl", ".", "pipe"):
        with pytest.raises(Fix) as caught:
            list(read_prompts(PromptsSection(path=path), tmp_path, 7))
        assert caught.value.code == Exit.INPUT
        assert caught.value.hint
