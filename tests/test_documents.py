"""YAML as people mean it: every trap of YAML 1.1, every way to make a parser explode, and the place of every value."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli import documents
from cai_cli.errors import Exit, Fix


def value(text: str) -> object:
    return documents.loads(f"key: {text}\n", "c.yaml").value["key"]


def problems(text: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(Fix) as caught:
        documents.loads(text, "c.yaml", env)
    assert caught.value.code == Exit.USAGE
    assert all(hint for _, hint in caught.value.problems), "every problem says what to type next"
    return [message for message, _ in caught.value.problems]


@pytest.mark.parametrize(
    "text", ["no", "on", "yes", "off", "y", "n", "No", "OFF", "1:30", "190:20:30", "2024-01-01", "0b101", "12:30:45", "=", "NaN"]
)
def test_what_yaml_1_1_would_convert_is_text(text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("true", True), ("True", True), ("TRUE", True), ("false", False), ("null", None), ("~", None), ("", None),
        ("Null", None), ("012", 12), ("0o14", 12), ("0x1F", 31), ("-7", -7), ("+7", 7), ("1e3", 1000),
        ("2.5E2", 250), ("3.10", 3.1), (".5", 0.5), ("1.", 1.0),
        ("1e-3", 0.001), ("[1, no, ~]", [1, "no", None]), ("'012'", "012"), ('"1_000"', "1_000"),
    ],
)  # fmt: skip
def test_scalars_mean_what_yaml_1_2_says(text: str, meant: object) -> None:
    assert value(text) == meant
    assert type(value(text)) is type(meant)


def test_a_count_written_with_an_exponent_is_a_whole_number_only_where_it_is_exact() -> None:
    assert isinstance(value("1e3"), int)
    assert isinstance(value("1e300"), float)
    assert isinstance(value("1.0"), float)


@pytest.mark.parametrize("text", ["1_000", "-1_0", "0x_ff", "1_000.5", "1_"])
def test_underscored_numbers_are_refused_by_name(text: str) -> None:
    (message,) = problems(f"a: 1\nkey: {text}\n")
    assert message.startswith("c.yaml:2: key: ")
    assert text in message


@pytest.mark.parametrize("text", ["1_000", "v_1", "_1"])
def test_the_same_in_quotes_is_text(text: str) -> None:
    assert value(f"'{text}'") == text


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", "9" * 5000])
def test_numbers_that_nothing_can_use_are_refused(text: str) -> None:
    (message,) = problems(f"key: {text}\n")
    assert message.startswith("c.yaml:1: key: ")
    assert len(message) < 200


def test_equal_keys_are_refused_with_both_lines() -> None:
    assert problems("a: 1\nb:\n  x: 1\n  y: 2\n  x: 3\na: 2\n") == [
        "c.yaml:5: b: 'x' is given twice, first in line 3",
        "c.yaml:6: 'a' is given twice, first in line 1",
    ]


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!str", "!mine", "!", "!!binary", "!<tag:x,1:y>"])
def test_tags_are_refused_on_values_and_keys(tag: str) -> None:
    assert all("the tag" in message for message in problems(f"key: {tag} x\n{tag} other: 1\n"))
    assert len(problems(f"key: {tag} x\n{tag} other: 1\n")) == 2
    assert len(problems(f"key: {tag} [x]\n")) == 1


@pytest.mark.parametrize(
    "text", ["base: &b {x: 1}\nkey: {<<: *b}\n", "? [1]\n: 2\n", "? {a: 1}\n: 2\n", ": 1\n", "a: &a x\n*a : 1\n"]
)
def test_keys_are_words(text: str) -> None:
    assert len(problems(text)) == 1


def test_keys_are_their_text() -> None:
    assert documents.loads("on: 1\n1: 2\nnull: 3\n012: 4\n'<<': 5\n", "c.yaml").value == {
        "on": 1,
        "1": 2,
        "null": 3,
        "012": 4,
        "<<": 5,
    }


def test_aliases_give_equal_values_that_are_not_the_same_list() -> None:
    read = documents.loads("a: &x [1, 2]\nb: *x\n", "c.yaml").value
    assert read == {"a": [1, 2], "b": [1, 2]}
    assert read["a"] is not read["b"]


@pytest.mark.parametrize("text", ["a: *x\n", "a: &x [*x]\n"])
def test_an_alias_of_what_is_not_there_yet_is_refused(text: str) -> None:
    assert "*x refers to &x" in problems(text)[0]


def test_an_alias_bomb_is_refused_where_it_goes_off() -> None:
    rows = ["a: &a [" + ", ".join(["1"] * 10) + "]"]
    rows += [
        f"{this}: &{this} [" + ", ".join([f"*{before}"] * 10) + "]" for before, this in zip("abcdefg", "bcdefgh", strict=True)
    ]
    (message,) = problems("\n".join(rows))
    assert message.startswith("c.yaml:5: more than 100000 values")


def test_depth_and_size_are_bounded(tmp_path: Path) -> None:
    assert "nested more than 100" in problems("a: " + "[" * 500)[0]
    assert "nested more than 100" in problems("\n".join("  " * n + f"k{n}:" for n in range(200)) + " 1")[0]
    assert documents.loads("a: " + "[" * 90 + "]" * 90, "c.yaml").value
    (tmp_path / "big.yaml").write_text("a: " + "x" * 1_000_001)
    with pytest.raises(Fix, match="larger than 1 MB"):
        documents.load(tmp_path / "big.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.yaml:1: this file is empty"),
        ("# only a comment\n", "c.yaml:1: this file is empty"),
        ("- 1\n", "c.yaml:1: must be keys and values, not a list"),
        ("just text\n", "c.yaml:1: must be keys and values, not text"),
        ("a:\n\tb: 1\n", "c.yaml:2: this line is indented with a tab"),
        ("a: 1\nb: [1,\n\n", "c.yaml:2: this is not YAML: it ends too early"),
        ("a: 1\nb: 'x\n", "c.yaml:2: this is not YAML: it ends too early"),
        ("a: 1\n---\nb: 2\n", "c.yaml:2: a second document begins"),
        ("a: \x07\n", "c.yaml:1: the character U+0007 may not stand in YAML"),
        ("a: 1\nb: \ud800\n", "c.yaml:2: the character U+D800 may not stand in YAML"),
    ],
)  # fmt: skip
def test_what_is_no_config_at_all_says_so(text: str, message: str) -> None:
    assert problems(text) == [message]


def test_broken_yaml_names_its_line() -> None:
    assert problems("a: 1\nb: c: d\n")[0].startswith("c.yaml:2: this is not YAML")


def test_files_are_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: \xc3\xa9\r\n")
    assert documents.load(path).value == {"a": 1, "b": "é"}
    path.write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(Fix) as caught:
        documents.load(path)
    assert caught.value.message.startswith(f"{path}:2: this is not UTF-8")


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(Fix) as caught:
        documents.load(tmp_path / name)
    assert str(tmp_path / name) in caught.value.message


def test_variables_stand_in_values_only() -> None:
    text = "a: ${HERE}/x\n${HERE}: '${HERE}'\nb: [\"${GONE:-there}\", $HERE]\nc: $${HERE}\nd: |\n  ${HERE}\n"
    read = documents.loads(text, "c.yaml", {"HERE": "home"})
    assert read.value == {"a": "home/x", "${HERE}": "home", "b": ["there", "$HERE"], "c": "${HERE}", "d": "home\n"}
    assert documents.loads(text, "c.yaml").value["a"] == "${HERE}/x", "only configs have variables"


def test_a_variable_is_text_whatever_it_holds() -> None:
    assert documents.loads("a: ${N}\nb: ${M}", "c.yaml", {"N": "null", "M": "${N}"}).value == {"a": "null", "b": "${N}"}


def test_an_unset_variable_is_an_error() -> None:
    assert problems("a: 1\nb: {c: '${GONE}'}\nd: '${ALSO_GONE}'\n", {}) == [
        "c.yaml:2: b.c: the environment variable GONE is not set",
        "c.yaml:3: d: the environment variable ALSO_GONE is not set",
    ]


@pytest.mark.parametrize("reference", ["${", "${}", "${a-b}", "${1}", "${A B}"])
def test_a_broken_reference_is_an_error(reference: str) -> None:
    assert "is not a reference" in problems(f"a: '{reference}'", {})[0]


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "HF_TOKEN", "my_secret", "DB_PASSWORD"])
def test_keys_never_go_through_a_config(name: str) -> None:
    (message,) = problems(f"a: ${{{name}}}", {name: "canary-4711"})
    assert name in message
    assert "canary" not in message


def test_every_value_has_its_place() -> None:
    document = documents.loads("a:\n  b:\n    - 1\n    - {c: 3.10}\nd: &x\n  e: 1\nf: *x\n", "dir/c.yaml")
    assert document.where() == "dir/c.yaml:1"
    assert document.where(("a", "b", 1, "c")) == "dir/c.yaml:4"
    assert document.where(("a", "gone")) == "dir/c.yaml:1"
    assert document.where(("a", "b", 7)) == "dir/c.yaml:2"
    assert document.where(("a", "gone", "b")) == "dir/c.yaml:1"  # a 'b' of something else
    assert document.where(("f",)) == "dir/c.yaml:7"
    assert document.where(("f", "e")) == "dir/c.yaml:6"
    assert document.written(("a", "b", 1, "c")) == "3.10"
    assert document.written(("a", "b")) == document.written(("a", "gone")) == ""


def test_text_inside_a_file_counts_lines_from_where_it_begins() -> None:
    assert documents.loads("a: 1\nb: 2\n", "t.md", first_line=2).where(("b",)) == "t.md:3"
    with pytest.raises(Fix, match=r"t\.md:3: "):
        documents.loads("a: 1\na: 2\n", "t.md", first_line=2)


@pytest.mark.parametrize(
    ("text", "meant"), [("", None), ("4", 4), ("[1, {a: no}]", [1, {"a": "no"}]), ("a b", "a b"), ("1e3", 1000)]
)
def test_single_values_are_read_as_behind_a_key(text: str, meant: object) -> None:
    assert documents.parse_scalar(text) == meant


ANY = st.text(st.characters())
LIKE_YAML = st.text("0123456789_-+.eExXoabn:~# [{&*!|>'\"%@,\n\t${}")


@given(ANY | LIKE_YAML)
def test_no_text_raises_anything_but_fix(text: str) -> None:
    with contextlib.suppress(Fix):
        documents.parse_scalar(text)
    with contextlib.suppress(Fix):
        documents.loads(text, "c.yaml", {"A": "b"})


# Beyond U+FFFF JSON escapes two halves, which YAML refuses.
TEXT = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]))
PLAIN = st.none() | st.booleans() | st.integers(-(10**98), 10**98) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
KEY = TEXT.filter(lambda text: 0 < len(text) < 150)  # YAML takes no key of more than 1,024 bytes, escapes included
NESTED = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=4), max_leaves=12)


@given(NESTED)
def test_json_means_the_same(value: object) -> None:
    assert documents.parse_scalar(json.dumps(value)) == value
