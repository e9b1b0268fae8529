"""cai analyze as its users meet it: on a config's versions and on any file, as tables and as JSON, at every width."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from outside import ROOT, Cai, write_config, write_rows
from outside import cai as in_a_process
from rich.console import Console

from cai_cli import analyses
from cai_cli.analyses import Analysis, Column, Number, Section
from cai_cli.analyses._texts import length
from cai_cli.errors import Exit, Fix
from cai_cli.reports import charts
from cai_cli.reports.analysis_page import analysis_page, said

OF_PAIRS = ("preferences", "agreement")
PROMPTS = [
    {"prompt": f"How do I mend violin number {n}?", "kind": ("harmful", "harmless")[n % 2], "topic": f"t{n % 3}",
     "pair": f"belief {n // 2}", "stance": ("pro", "contra")[n % 2]}
    for n in range(14)
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config whose stages have all run: two systems, two labelers, scores."""
    folder = tmp_path_factory.mktemp("made")
    write_rows(folder / "prompts.jsonl", PROMPTS)
    write_config(
        folder, prompts={"path": "prompts.jsonl", "kind": "kind", "keep": ["topic", "pair", "stance"]}, score={},
        generate={"samples": 1, "systems": [None, "Mind everybody's safety."]}, debias={"ties": "keep", "min_confidence": 0.5},
        label_pairs={"labelers": [{"name": "one"}, {"name": "two", "model": {"name": "another-world"}}]},
    )  # fmt: skip
    for verb in ("run", "score"):
        done = in_a_process(folder, verb, "c.yaml")
        assert done.code == Exit.OK, done.err
    return folder


def analyzed(cai: Cai, *arguments: object, stdin: bytes | None = None) -> dict[str, Any]:
    code, out, err = cai("analyze", *arguments, "--json", stdin=stdin)
    assert code == Exit.OK, err
    return dict(json.loads(out))


@pytest.mark.parametrize("name", analyses.names())
def test_every_analysis_looks_at_a_run(cai: Cai, made: Path, name: str) -> None:
    found = analyzed(cai, name, made / "c.yaml", "-o", made / "out")
    assert found["analysis"] == name
    assert found["rows"] > 0
    assert found["sections"]
    code, out, err = cai("analyze", name, made / "c.yaml", "-o", made / "out")
    assert (code, err) == (Exit.OK, "")
    assert out.startswith(f"{name}: {found['rows']:,} rows of ")
    assert out.count("\n\n") >= len(found["sections"]), "a heading and a table each"


@pytest.mark.parametrize("name", analyses.names())
def test_every_help_has_examples(cai: Cai, name: str) -> None:
    code, out, _ = cai("analyze", name, "-h")
    assert code == Exit.OK
    assert f"  cai analyze {name} " in out.partition("Examples:")[2]


def test_systems_are_compared_over_stages(cai: Cai, made: Path) -> None:
    found = analyzed(cai, "systems", made / "c.yaml", "-o", made / "out")
    assert [row["rows"] for row in found["sections"]["groups"]["rows"]] == [14, 14]
    assert {row["prompts"] for row in found["sections"]["differences"]["rows"]} == {14}
    assert "score, composite" in {row["measure"] for row in found["sections"]["measures"]["rows"]}
    (won,) = found["sections"]["wins"]["rows"]
    assert 0 <= won["won"]["low"] <= won["won"]["value"] <= won["won"]["high"] <= 1


def test_categories_of_the_config_weigh_what_coverage_expects(cai: Cai, made: Path) -> None:
    plain, config = json.loads((made / "c.yaml").read_text()), made / "weighed.yaml"
    config.write_text(json.dumps({**plain, "critique": {"categories": {"harmlessness": 0}}}))
    drawn = [
        analyzed(cai, "coverage", one, "-o", made / "out")["sections"]["principles"]["rows"] for one in (made / "c.yaml", config)
    ]
    expected = [{row["principle"]: row["expected"] for row in rows} for rows in drawn]
    assert expected[0] != expected[1]


def test_counts_are_those_of_the_rows(cai: Cai, made: Path) -> None:
    rows = rows_of(made, "label-pairs")
    found = analyzed(cai, "preferences", made / "c.yaml", "-o", made / "out", "--by", "meta.topic")
    sections = {name: one["rows"] for name, one in found["sections"].items()}
    assert sections["labels"][0]["rows"] == sum(row["preference"] == "a" for row in rows)
    assert sum(row["votes"] for row in sections["labelers"]) == sum(len(row["votes"]) for row in rows)
    assert [row["by"] for row in sections["by"]] == ["t0", "t1", "t2"]
    kept = rows_of(made, "debias")
    assert (sections["kept"][0]["all"], sections["kept"][0]["kept"]) == (len(rows), len(kept))
    longer = [length(row["chosen"]) > length(row["rejected"]) for row in kept if row["chosen"] and _differ(row)]
    assert sections["kept"][4]["kept"]["value"] == pytest.approx(sum(longer) / len(longer))


def _differ(row: dict[str, Any]) -> bool:
    return length(row["chosen"]) != length(row["rejected"])


def rows_of(made: Path, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted((made / f"out/{stage}/latest").glob("*-of-*")) for line in path.open()]


def test_the_same_rows_come_from_a_stages_folder_a_file_and_stdin(cai: Cai, made: Path, tmp_path: Path) -> None:
    text = b"".join(path.read_bytes() for path in sorted((made / "out/label-pairs/latest").glob("*-of-*")))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(text))
    found = [
        analyzed(cai, "preferences", "-i", made / "out/label-pairs"), analyzed(cai, "preferences", "-i", "rows.jsonl.gz"),
        analyzed(cai, "preferences", "-i", "-", stdin=text), analyzed(cai, "preferences", made / "c.yaml", "-o", made / "out"),
    ]  # fmt: skip
    assert [one.pop("source").partition("/v")[0] for one in found][1:] == ["rows.jsonl.gz", "stdin", "label-pairs"]
    del found[3]["sections"]["kept"], found[3]["sections"]["flags"]
    assert found[0] == found[1] == found[2] == found[3], "what debias kept is told of a config only"


@pytest.mark.parametrize("name", OF_PAIRS)
def test_rows_that_debias_selected_are_said_to_be_so(cai: Cai, made: Path, name: str) -> None:
    for of_all, arguments in ((True, [made / "c.yaml", "-o", made / "out"]), (False, ["-i", made / "out/debias"])):
        found = analyzed(cai, name, *arguments)
        assert any("which debias kept" in one or "that debias kept" in one for one in found["warnings"]) != of_all


def test_a_table_of_other_people_is_looked_at_as_far_as_its_columns_go(cai: Cai, tmp_path: Path) -> None:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerows([["id", "mine", "yours"], *[[n, "good", "good" if n < 7 else "bad"] for n in range(10)]])
    (tmp_path / "table.csv").write_text(file.getvalue())
    found = analyzed(cai, "agreement", "-i", "table.csv", "--column", "mine", "--column", "yours")
    assert found["sections"]["columns"]["rows"][0]["raw"]["value"] == pytest.approx(0.7)
    assert any("votes" in one for one in found["warnings"])


def test_numbers_and_truths_of_a_csv_are_read_as_such(cai: Cai, tmp_path: Path) -> None:
    lines = ["id,prompt_id,response_a,response_b,preference,p_a,consistent,kind", *(
        f"{n},{n},a b c,d,a,0.{7 + n % 2},{'true' if n < 3 else 'false'},{('x', 'y')[n % 2]}" for n in range(6)
    )]  # fmt: skip
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    sections = analyzed(cai, "preferences", "-i", "rows.csv")["sections"]
    assert [row["rows"] for row in sections["confidence"]["rows"]] == [0, 0, 0, 0, 3, 0, 3, 0, 0, 0]
    assert [row["consistent"]["value"] for row in sections["by_kind"]["rows"]] == pytest.approx([2 / 3, 1 / 3])


def test_two_files_are_compared_by_id(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "mine.jsonl", [{"id": str(n), "preference": "a", "p_a": 0.9} for n in range(10)])
    write_rows(tmp_path / "theirs.jsonl", [{"id": str(n), "preference": "a" if n < 8 else "b"} for n in range(10)])
    found = analyzed(cai, "agreement", "-i", "mine.jsonl", "--with", "theirs.jsonl")
    assert found["sections"]["files"]["rows"][0]["raw"]["value"] == pytest.approx(0.8)


def test_limit_looks_at_the_first_rows(cai: Cai, made: Path) -> None:
    assert analyzed(cai, "preferences", made / "c.yaml", "-o", made / "out", "--limit", 3)["rows"] == 3


def test_lines_that_cannot_be_read_are_said_on_stderr(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"chosen": "a b", "rejected": "c"}\nnot json\n')
    code, out, err = cai("analyze", "preferences", "-i", "rows.jsonl")
    assert code == Exit.OK
    assert out.startswith("preferences: 1 row of rows.jsonl")
    assert err == "warning: lines left out because they cannot be read: 1 (rows.jsonl:2 not_json)\n"


@pytest.mark.parametrize("name", OF_PAIRS)
def test_what_has_not_been_made_is_named_with_the_command_that_makes_it(cai: Cai, tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    code, out, err = cai("analyze", name, write_config(tmp_path))
    assert (code, out) == (Exit.INPUT, "")
    assert "out holds no label-pairs nor debias yet" in err
    assert re.search(r"hint: make it: cai run .*c\.yaml; or look at a file: -i FILE", err)


def test_rows_that_say_nothing_are_an_error_that_names_the_columns(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "hi"}])
    code, out, err = cai("analyze", "preferences", "-i", "rows.jsonl")
    assert (code, out) == (Exit.INPUT, "")
    assert "rows.jsonl: no row has a label (preference, p_a or votes), or two texts" in err
    assert "note" not in err
    (tmp_path / "empty.jsonl").write_text("")
    code, _, err = cai("analyze", "preferences", "-i", "empty.jsonl")
    assert (code, "empty.jsonl holds no rows" in err) == (Exit.INPUT, True)


def test_finding_nothing_in_sound_rows_is_an_answer(cai: Cai, tmp_path: Path) -> None:
    vote = {"labeler": "x", "order": "ab", "verdict": "a"}
    write_rows(tmp_path / "rows.jsonl", [{"id": str(n), "prompt": str(n), "votes": [vote]} for n in range(4)])
    code, out, err = cai("analyze", "agreement", "-i", "rows.jsonl")
    assert (code, err) == (Exit.OK, "")
    assert "there is nothing to show" in out
    assert "note: there is one labeler only" in out
    assert analyzed(cai, "agreement", "-i", "rows.jsonl")["sections"] == {}


def test_two_columns_of_a_file_give_a_sentence(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"id": str(n), "one": "yes", "two": "yes" if n % 4 else "no"} for n in range(40)])
    found = analyzed(cai, "agreement", "-i", "rows.jsonl", "--column", "one", "--column", "two")
    assert any(one.startswith("one / two: the same in 75.0% (") for one in found["findings"])


def test_neither_config_nor_rows_is_a_mistake_of_the_command_line(cai: Cai) -> None:
    code, _, err = cai("analyze", "preferences", "--json")
    assert (code, err) == (
        Exit.USAGE,
        (
            "error: cai analyze preferences needs a config, or rows\n"
            "hint: cai analyze preferences CONFIG; or: cai analyze preferences -i FILE\n"
        ),
    )


def test_a_datasets_folder_is_answered_with_the_stages_in_it(cai: Cai, made: Path) -> None:
    code, _, err = cai("analyze", "preferences", "-i", made / "out")
    assert (code, f"{made / 'out'}/debias" in err) == (Exit.INPUT, True)


def test_a_published_file_that_was_changed_is_not_looked_at(cai: Cai, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "out", tmp_path / "out", symlinks=True)
    shard = next((tmp_path / "out/debias/latest").glob("*-of-*"))
    shard.write_bytes(b"not json\n" + shard.read_bytes())
    code, out, err = cai("analyze", "preferences", made / "c.yaml", "-o", "out")
    assert (code, out) == (Exit.INPUT, "")
    assert "a published file was changed" in err


def test_rows_of_another_file_need_ids_and_each_once(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"id": "1", "preference": "a"}] * 2)
    write_rows(tmp_path / "none.jsonl", [{"preference": "a"}])
    for name, words in (("rows.jsonl", "stands there twice"), ("none.jsonl", "no row has an id")):
        code, _, err = cai("analyze", "agreement", "-i", "rows.jsonl", "--with", name)
        assert (code, words in err) == (Exit.INPUT, True), err


def test_a_name_in_a_row_moves_no_cursor(cai: Cai, tmp_path: Path) -> None:
    vote = {"labeler": "x\x1b[2J\u202e[red]y[/red]", "order": "ab", "verdict": "a"}
    write_rows(tmp_path / "rows.jsonl", [{"id": str(n), "prompt": str(n), "votes": [vote]} for n in range(30)])
    code, out, _ = cai("analyze", "preferences", "-i", "rows.jsonl")
    assert code == Exit.OK
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[red]y[/red]" in out


def test_an_analysis_of_nobody_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(Fix, match="there is no analysis 'preference'") as caught:
        analyses.find("preference")
    assert caught.value.hint == "did you mean 'preferences'?"


PLUGIN = """
from cai_cli.analyses import Analysis, Column, Section

SUMMARY = "How many rows there are."
READS = ("generate",)


def analyse(rows, options):
    head = (Column(name="n", title="rows"),)
    count = sum(1 for _ in rows)
    return Analysis(name="howmany", rows=count, sections=(Section(name="all", title="all", head=head, rows=({"n": count},)),))
"""


def test_another_package_adds_an_analysis(tmp_path: Path) -> None:
    about = tmp_path / "installed" / "howmany-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: howmany\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[cai.analyses]\nhowmany = howmany\n")
    (tmp_path / "installed" / "howmany.py").write_text(PLUGIN)
    write_rows(tmp_path / "rows.jsonl", PROMPTS)
    done = in_a_process(
        tmp_path, "analyze", "howmany", "-i", "rows.jsonl", env={"PYTHONPATH": f"{ROOT}:{tmp_path / 'installed'}"}
    )
    assert (done.code, done.out) == (Exit.OK, "howmany: 14 rows of rows.jsonl\n\nall\nrows\n  14\n"), done.err


# The page.


def drawn(found: Analysis, width: int, **options: Any) -> list[str]:
    out = Console(width=width, file=io.StringIO(), markup=False, highlight=False, **options)
    for part in analysis_page(found, "rows", out):
        out.print(part)
    file = out.file
    assert isinstance(file, io.StringIO)
    return [line.rstrip() for line in file.getvalue().split("\n")]


SHARE = Number(value=0.612, low=0.58, high=0.644, n=900, unit="share")
WIDE = Section(
    name="wide", title="wide", note="How to read it, in a sentence that is long enough to need a second line at eighty columns.",
    head=(Column(name="who", title="who", once=True), Column(name="n", title="rows"), *(
        Column(name=f"v{n}", title=f"value {n}", whiskers=n == 3, at=0.5) for n in range(4)
    )),
    rows=({"who": "somebody with a name of several words", "n": 12345, **{f"v{n}": SHARE for n in range(4)}},) * 2,
)  # fmt: skip
PAGE = Analysis(
    name="made", rows=2, sections=(WIDE,), findings=("A finding with its number, 61.2%. " * 5,), warnings=("Missing.",)
)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_page_keeps_within_its_width_and_breaks_no_number(width: int) -> None:
    lines = drawn(PAGE, width)
    assert max(map(len, lines)) <= width
    prose = [line for line in lines if "12,345" not in line and "value" not in line]
    assert max(map(len, prose)) <= 100, "prose stays readable"
    assert sum(line.count("61.2%") for line in lines) == 5 + 2 * 4
    assert sum(line.count("12,345") for line in lines) == 2


def test_what_does_not_fit_gives_way_charts_first_then_intervals() -> None:
    at = {width: "\n".join(drawn(PAGE, width)) for width in (200, 120, 80, 60)}
    assert "---o---" in at[200].replace("+", "-")
    assert "61.2% (58.0 to 64.4)" in at[200]
    assert "61.2% ±3.2" in at[80]
    assert "±" not in at[60].replace("±: the 95%", "")
    aside = Number(value=0.612, low=0.5, high=0.644, unit="share")
    rows = tuple({**row, **{f"v{n}": aside for n in range(4)}} for row in WIDE.rows)
    narrow = "\n".join(drawn(replace(PAGE, sections=(replace(WIDE, rows=rows),)), 70))
    assert narrow.count("61.2% (50.0 to 64.4)") == 2, "what is drawn with whiskers keeps its interval longest"


def test_a_value_like_the_one_above_is_not_repeated() -> None:
    assert sum(line.count("somebody") for line in drawn(PAGE, 200)) == 1


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (SHARE, "61.2% (58.0 to 64.4)"),
        (Number(value=1234.5, low=1200.0, high=1300.2), "1,234 (1,200 to 1,300)"),
        (Number(value=-0.0004), ">-0.001"),
        (Number(value=None), "-"),
        (Number(value=2.0), "2.00"),
        (Number(value=-0.04, unit="words"), "0.0"),
        (Number(value=1.0, low=0.981, high=1.0), "1.000 (0.981 to 1.000)"),
    ],
)
def test_numbers_are_said_with_three_digits(number: Number, words: str) -> None:
    assert said(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (SHARE, "61.2% ±3.2"),
        (Number(value=0.0, low=0.0, high=0.088, unit="share"), "0.0% (0.0 to 8.8)"),
        (Number(value=0.9, low=0.7, high=0.95), "0.900 (0.700 to 0.950)"),
        (Number(value=0.9, low=0.8504, high=0.9501), "0.900 ±0.050"),
    ],
)
def test_half_an_interval_is_said_only_where_it_is_centred(number: Number, words: str) -> None:
    assert said(number, "half") == words


def test_a_column_has_its_decimals_and_a_unit_its_own() -> None:
    head = (Column(name="who", title="who"), Column(name="p", title="p"), Column(name="v", title="value"))
    values = (Number(value=0.07, unit="words"), Number(value=12.3, unit="words"), SHARE, Number(value=9.98), Number(value=0.071))
    rows = tuple(
        {"who": str(n), "p": p, "v": v} for n, (p, v) in enumerate(zip((1.0, 0.5, 0.01, 0.0001, 0.2), values, strict=True))
    )
    rows += ({"who": "6", "p": None, "v": 12345},)
    lines = drawn(Analysis(name="a", rows=5, sections=(Section(name="s", title="s", head=head, rows=rows),)), 100)
    cells = [line.split() for line in lines if line[:1].isdigit()]
    assert [one[1] for one in cells] == ["1.000", "0.500", "0.010", "<0.001", "0.200", "-"]
    assert [" ".join(one[2:]) for one in cells] == ["0.1", "12.3", "61.2% (58.0 to 64.4)", "9.98", "0.07", "12,345"]


def test_what_stands_in_the_tables_is_said_below() -> None:
    assert drawn(PAGE, 200)[-2].startswith("(low to high): the 95% interval, by prompt; --o--:")
    plain = Section(name="s", title="s", head=(Column(name="n", title="n"),), rows=({"n": 1},))
    assert drawn(Analysis(name="a", rows=1, sections=(plain,)), 80)[-2].strip() == "1"


def test_bars_are_as_long_as_their_share_and_plain_where_asked() -> None:
    assert charts.bar(0.5, 1, 20) == "█" * 10
    assert charts.bar(1, 1, 20, plain=True) == "#" * 20
    assert (charts.bar(0, 1, 20), len(charts.bar(1e-9, 1, 20))) == ("", 1)


def test_whiskers_show_the_interval_and_where_the_mark_is() -> None:
    assert charts.whiskers(5, 3, 7, (0, 10), 11, mark=0) == "|  --o--"
    assert charts.whiskers(2, -1, 5, (-5, 5), 11, mark=0) == "    -+-o---"
    assert charts.whiskers(1, None, None, (1, 1), 11) == "o"


def test_a_terminal_without_unicode_gets_ascii() -> None:
    head = (Column(name="who", title="who"), Column(name="v", title="value", bar=True, most=1))
    section = Section(name="s", title="s", head=head, rows=({"who": "x", "v": SHARE},))
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    out = Console(width=80, file=file, markup=False)
    for part in analysis_page(Analysis(name="a", rows=1, sections=(section,)), "rows", out):
        out.print(part)
    file.flush()
    assert "############" in file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
