"""`cai init`: every start gives a folder that checks clean and runs; bad files are refused before anything is written."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from outside import Cai, environment, write_rows

from cai_cli import config as configs
from cai_cli.cli._init_questions import answered
from cai_cli.cli.init import For, Wanted
from cai_cli.errors import Fix

PAIRS = [{"prompt": f"What is kite {n}?", "chosen": f"A toy {n}.", "rejected": f"A bird {n}."} for n in range(3)]
VOTED = [
    {"prompt": f"What is kite {n}?", "response_a": f"A toy {n}.", "response_b": f"A bird {n}.",
     "votes": [{"labeler": "j", "order": order, "p_a": 0.8} for order in ("ab", "ba")]} for n in range(40)
]  # fmt: skip


def next_commands(out: str) -> list[str]:
    """What is to be typed next, but for the change of folder."""
    lines = [line.strip() for line in out.partition("next:")[2].splitlines()]
    return [line for line in lines if line and not line.startswith("cd ")]


def followed(cai: Cai, folder: Path, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Type all of it."""
    monkeypatch.chdir(folder)
    for line in next_commands(out):
        code, _, err = cai(*line.split()[1:])
        assert code == 0, (line, err)


@pytest.mark.parametrize("args", [(), ("--for", "try"), ("--for", "red-team"), ("--constitution", "safety")])
def test_a_start_without_a_file_checks_clean_and_runs_to_its_end(
    cai: Cai, tmp_path: Path, args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = cai("init", "new", *args)
    assert (code, err) == (0, "")
    monkeypatch.chdir(tmp_path / "new")
    if "safety" not in args:  # that one is one-sided by intent, and said to be
        code, _, err = cai("config", "check", "cai.yaml", "--strict")
        assert (code, err) == (0, "")
    if "red-team" in args:
        config = tmp_path / "new" / "cai.yaml"
        config.write_text(config.read_text().replace("count: 200", "count: 6"))
        assert len(list((tmp_path / "new" / "prompts").iterdir())) == 4
    followed(cai, tmp_path / "new", out, monkeypatch)


@pytest.mark.parametrize(
    ("name", "data", "column", "kind", "said"),
    [
        ("q.csv", "id,Question,type\n1,What is a kite?,harmless\n2,How do I steal one?,harmful\n", "Question", "type",
         "2 prompts in the column 'Question', 1 harmless, 1 harmful"),
        ("q.txt", "".join(f"Who made kite {n}?\n" for n in range(12)), "", "", "12 prompts"),
        ("q.jsonl", '{"messages": [{"role": "user", "content": "What?"}]}\n', "", "", "1 prompt"),
        ("q.jsonl", '{"talk": [{"role": "user", "content": "What?"}], "n": 3}\n', "talk", "", "1 prompt in the column 'talk'"),
        ("q.json", '[{"instruction": "Do it.", "output": "Done."}, {"instruction": "Do it again.", "output": "Done."}]',
             "instruction", "", "2 prompts in the column 'instruction'"),
        ("q.jsonl", '{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b", "rejected": "\\n\\nHuman: a\\n\\nAssistant: c"}\n', "", "",
         "1 prompt"),
        ("q.jsonl", '{"prompt": "What?"}\n{"no": 1}\n', "", "", "1 row that cannot be used (1 missing_column)"),
    ],
)  # fmt: skip
def test_own_prompts_are_looked_at_and_run(
    cai: Cai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: str, column: str, kind: str, said: str
) -> None:
    (tmp_path / name).write_text(data)
    code, out, err = cai("init", "new", "--prompts", name)
    assert (code, said in err) == (0, True), err
    prompts = configs.load(tmp_path / "new" / "cai.yaml").prompts
    assert prompts is not None
    assert (prompts.path, prompts.column or "", prompts.kind) == (f"../{name}", column, kind)
    assert not (tmp_path / "new" / "prompts.jsonl").exists()
    config = tmp_path / "new" / "cai.yaml"
    config.write_text(config.read_text() + "limits: {max_reject_rate: 1}\n")
    followed(cai, tmp_path / "new", out, monkeypatch)


def test_own_pairs_are_judged_and_debiased(cai: Cai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "p.jsonl", PAIRS)
    code, out, err = cai("init", "new", "--pairs", "p.jsonl")
    assert (code, err) == (0, "cai: p.jsonl: 3 pairs\n")
    config = configs.load(tmp_path / "new" / "cai.yaml")
    assert list(config.sections) == ["label_pairs", "debias"]
    assert "add gold: true" in (tmp_path / "new" / "cai.yaml").read_text()
    followed(cai, tmp_path / "new", out, monkeypatch)
    assert cai("config", "check", "cai.yaml", "--strict")[0] == 0


def test_pairs_with_votes_are_only_debiased(cai: Cai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "v.jsonl", VOTED)
    code, out, err = cai("init", "new", "--pairs", "v.jsonl")
    assert (code, err) == (0, "cai: v.jsonl: 40 pairs, with votes\n")
    assert next_commands(out)[0] == "cai debias cai.yaml -i ../v.jsonl"
    assert list(configs.load(tmp_path / "new" / "cai.yaml").sections) == ["debias"]
    followed(cai, tmp_path / "new", out, monkeypatch)
    assert cai("config", "check", "cai.yaml", "--strict")[0] == 0


def test_a_real_provider_gets_its_budget_and_a_constitution_of_ones_own_stays_where_it_is(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nextends: general\n")
    code, out, _ = cai("init", "new", "--provider", "anthropic", "--budget", "12.5", "--constitution", "mine.yaml")
    config = configs.load(tmp_path / "new" / "cai.yaml")
    assert (code, config.limits.budget_usd, config.constitution) == (0, 12.5, "../mine.yaml")
    assert not (tmp_path / "new" / "constitution.yaml").exists()
    assert next_commands(out)[0] == "export ANTHROPIC_API_KEY=..."


@pytest.mark.parametrize(
    ("provider", "variables"),
    [("bedrock", ("AWS_REGION", "AWS_BEARER_TOKEN_BEDROCK")), ("vertex", ("CLOUD_ML_REGION", "ANTHROPIC_VERTEX_PROJECT_ID"))],
)
def test_what_a_cloud_needs_is_among_what_comes_next(cai: Cai, provider: str, variables: tuple[str, ...]) -> None:
    code, out, _ = cai("init", "new", "--provider", provider, "--model", "some.claude-v1")
    assert (code, [name for name in variables if f"export {name}=..." in out]) == (0, list(variables))


@pytest.mark.parametrize(
    ("provider", "model", "judge"),
    [("anthropic", "claude-opus-5-5", "openai"), ("openai", "my-own", "anthropic"), ("simulated", "small-world", "openai")],
)
def test_the_second_judge_of_the_comment_can_be_taken_as_it_stands(
    cai: Cai, tmp_path: Path, provider: str, model: str, judge: str
) -> None:
    assert cai("init", "new", "--provider", provider, "--model", model)[0] == 0
    path = tmp_path / "new" / "cai.yaml"
    (line,) = [line for line in path.read_text().splitlines() if line.startswith("#   labelers: ")]
    path.write_text(
        path.read_text().replace("label_pairs:\n", f"label_pairs:\n{line[2:]}\n".replace("   labelers", "  labelers"))
    )
    labelers = configs.load(path).sections["label_pairs"].labelers  # type: ignore[attr-defined]
    assert [one.model and one.model.provider for one in labelers] == [None, judge]
    code, _, err = cai("config", "check", "new/cai.yaml")
    assert (code, "every judge" in err, "price is known for 'gpt-5'" in err) == (0, False, False), err


def test_every_key_of_the_config_is_explained(cai: Cai, tmp_path: Path) -> None:
    assert cai("init", "new", "--for", "red-team", "--provider", "anthropic")[0] == 0
    lines = (tmp_path / "new" / "cai.yaml").read_text().splitlines()
    for n, line in enumerate(lines):
        above = next((one for one in reversed(lines[:n]) if not one.startswith(("name:", "output:", "model:"))), "")
        told = "#" in line or above.startswith("#") or line.endswith(":")
        assert not line or told, f"nothing says what this is: {line}"


def test_a_model_without_a_price_gets_no_budget_that_could_not_be_kept_and_that_is_said(cai: Cai, tmp_path: Path) -> None:
    code, _, err = cai("init", "new", "--provider", "openai", "--model", "my-own")
    assert code == 0
    assert err.startswith("warning: no price is known for 'my-own', so there is no limits.budget_usd")
    assert "hint: set model.price and limits.budget_usd in new/cai.yaml" in err
    code, _, err = cai("init", "third", "--provider", "anthropic", "--model", "claude-sonnet-5.5")
    assert (code, "hint: did you mean 'claude-sonnet-5-5'? if not, set model.price" in err) == (0, True)
    assert configs.load(tmp_path / "new" / "cai.yaml").limits.budget_usd is None
    code, _, err = cai("init", "other", "--provider", "openai", "--model", "my-own", "--budget", "3")
    assert (code, "set model.price" in err) == (2, True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--prompts", "nowhere.jsonl"), 65, "there is no file or folder 'nowhere.jsonl'"),
        (("--prompts", "empty.jsonl"), 65, "no row among the first"),
        (("--prompts", "two.jsonl"), 65, "name it: --column NAME, one of first, second"),
        (("--prompts", "two.jsonl", "--column", "frst"), 65, "did you mean 'first'?"),
        (("--prompts", "numbers.jsonl"), 65, "none of 1 rows can be used: 1 wrong_type"),
        (("--pairs", "two.jsonl"), 65, "if these are prompts: --prompts FILE"),
        (("--prompts", "two.jsonl", "--pairs", "two.jsonl"), 2, "keep one of them"),
        (("--for", "pairs"), 2, "name it: --pairs FILE"),
        (("--constitution", "genral"), 2, "did you mean 'general'?"),
        (("--constitution", "two.jsonl"), 2, "two.jsonl:"),
        (("--provider", "Antropic"), 2, "did you mean 'anthropic'?"),
        (("--provider", "zzz"), 2, "there are: anthropic, bedrock"),
        (("--for", "redteam"), 2, "did you mean red-team?"),
        (("--for=Red-Team",), 2, "did you mean red-team?"),
        (("--for", "zzz"), 2, "hint: cai init -h"),
        (("--provider", "openai"), 2, "--model NAME"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    cai: Cai, tmp_path: Path, args: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    write_rows(tmp_path / "two.jsonl", [{"first": "a b", "second": "c d"}])
    write_rows(tmp_path / "numbers.jsonl", [{"prompt": 3}])
    found, out, err = cai("init", "new", *args)
    assert (found, out, said in err) == (code, "", True), err
    assert not (tmp_path / "new").exists()


def test_what_a_file_holds_cannot_break_out_of_a_comment(cai: Cai, tmp_path: Path) -> None:
    name = "a\nb: ${HOME} #\x1b"
    write_rows(tmp_path / "q.jsonl", [{name: "What is a kite?"}])
    code, out, err = cai("init", "new", "--prompts", "q.jsonl")
    assert (code, "\x1b" in out + err) == (0, False)
    prompts = configs.load(tmp_path / "new" / "cai.yaml").prompts
    assert prompts is not None
    assert prompts.column == name


# On a terminal


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "cai_cli", *args]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment(folder, TERM="dumb")
        )
        os.close(slave)
        self.said = ""

    def until(self, text: str, within_s: float = 20.0) -> None:
        """Read on until it says so."""
        end = time.monotonic() + within_s
        while text not in " ".join(self.said.split()) and text not in self.said:  # it is folded
            assert time.monotonic() < end, f"never said {text!r}: {self.said}"
            self._read(0.2)

    def until_asked(self, text: str) -> None:
        """Read on until it says so, and waits for the answer: between the two a signal finds nobody."""
        self.until(text)
        time.sleep(0.5)

    def _read(self, wait_s: float) -> bool:
        if not select.select([self.master], [], [], wait_s)[0]:
            return True
        try:
            chunk = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            return False
        self.said += chunk.decode()
        return bool(chunk)

    def type(self, line: str) -> None:
        os.write(self.master, f"{line}\n".encode())

    def end(self, within_s: float = 60.0) -> int:
        end = time.monotonic() + within_s
        while self._read(1.0) and self.process.poll() is None:
            if time.monotonic() > end:
                self.process.kill()
                raise AssertionError(f"it never ended: {self.said}")
        code = self.process.wait(20)
        while self._read(0.0) and select.select([self.master], [], [], 0)[0]:
            pass
        os.close(self.master)
        return code


def test_on_a_terminal_it_asks_and_enter_takes_the_defaults(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "init", "new")
    for question in ("number [1]: ", "provider [simulated]: ", "constitution [general]: "):
        terminal.until(question)
        terminal.type("")
    assert terminal.end() == 0, terminal.said
    config = configs.load(tmp_path / "new" / "cai.yaml")
    assert (config.model.provider, config.constitution) == ("simulated", "constitution.yaml")


def test_wrong_answers_are_told_and_asked_again(tmp_path: Path) -> None:
    write_rows(tmp_path / "two.jsonl", [{"first": "a b", "second": "c d"}])
    terminal = Terminal(tmp_path, "init", "new")
    answers = [
        ("number [1]: ", "9"), ("'9' is none of them", "3"),
        ("file (", "nowhere"), ("no file or folder 'nowhere'", "two.jsonl"),
        ("two.jsonl#COLUMN, one of first, second", "two.jsonl#secnd"),
        ("did you mean 'second'?", "two.jsonl#second"), ("1 prompt in the column 'second'", ""),
        ("provider [simulated]: ", "anthropic"),
        ("model [claude-sonnet-5-5]: ", ""), ("dollars it may cost, over all runs [5]: ", "many"), ("is no amount", "$20"),
        ("constitution [general]: ", "genral"), ("did you mean 'general'?", "safety"),
    ]  # fmt: skip
    for said, answer in answers:
        terminal.until(said)
        if answer or said.endswith(": "):
            terminal.type(answer)
    assert terminal.end() == 0, terminal.said
    config = configs.load(tmp_path / "new" / "cai.yaml")
    assert config.prompts is not None
    assert (config.prompts.column, config.limits.budget_usd, config.model.provider) == ("second", 20.0, "anthropic")


def test_ctrl_c_and_the_end_of_the_input_leave_nothing_behind(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "init", "new")
    terminal.until_asked("number [1]: ")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert terminal.said.splitlines()[-1] == "cai: nothing was written; to begin again: cai init new", terminal.said
    assert "in flight" not in terminal.said
    terminal = Terminal(tmp_path, "init", "new")
    terminal.until_asked("number [1]: ")
    terminal.process.send_signal(signal.SIGTERM)
    assert (terminal.end(), "nothing was written" in terminal.said) == (75, True)
    terminal = Terminal(tmp_path, "init", "new")
    terminal.until_asked("number [1]: ")
    os.write(terminal.master, b"\x04")
    assert terminal.end() == 2
    assert "--yes" in terminal.said
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_is_told_before_any_question(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "cai.yaml").touch()
    terminal = Terminal(tmp_path, "init", "new")
    assert terminal.end() == 2
    assert "new/cai.yaml is there already" in terminal.said
    assert "Enter takes" not in terminal.said


def test_an_answer_that_would_overwrite_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    write_rows(tmp_path / "new" / "prompts.jsonl", [{"prompt": "What is a kite?"}])
    (tmp_path / "new" / "prompts").mkdir()
    (tmp_path / "new" / "constitution.yaml").write_text("name: mine\nextends: general\n")
    terminal = Terminal(tmp_path, "init", "new")
    answers = [
        ("number [1]: ", "1"), ("new/prompts.jsonl is there already; type 3 and name it", "2"),
        ("new/prompts is there already", "3"), ("file (", "new/prompts.jsonl"), ("provider [simulated]: ", ""),
        ("constitution [general]: ", ""), ("type new/constitution.yaml to take it", "new/constitution.yaml"),
    ]  # fmt: skip
    for said, answer in answers:
        terminal.until(said)
        terminal.type(answer)
    assert terminal.end() == 0, terminal.said
    config = configs.load(tmp_path / "new" / "cai.yaml")
    assert (config.constitution, config.prompts and config.prompts.path) == ("constitution.yaml", "prompts.jsonl")


def test_a_file_of_prompts_given_as_pairs_is_asked_again_in_words_that_fit_a_question(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_rows(tmp_path / "q.jsonl", [{"prompt": "What is a kite?"}])
    answers(monkeypatch, str(tmp_path / "q.jsonl"))
    with pytest.raises(Fix, match="the input ended"):
        answered(Wanted(folder=tmp_path / "new", what=For.pairs))
    err = capsys.readouterr().err
    assert ("pairs are response_a" in err, "--" in err) == (True, False)


def test_with_yes_or_without_a_terminal_nothing_is_asked(tmp_path: Path, cai: Cai) -> None:
    terminal = Terminal(tmp_path, "init", "new", "--yes")
    assert terminal.end() == 0
    assert "number" not in terminal.said
    assert cai("init", "other")[0] == 0


def test_every_start_is_an_answer(tmp_path: Path) -> None:
    from cai_cli.cli import _init_questions

    assert [start for start, _ in _init_questions._STARTS] == list(For)
    with pytest.raises(Fix):
        _init_questions._numbered("0", tmp_path)


def answers(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """What is typed, line by line, until the input ends."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_answers_that_are_none_are_told_one_by_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    answers(monkeypatch, "0", "1", "nobody", "openai", "", "gpt-x", "general")
    found = answered(Wanted(folder=tmp_path / "new"))
    assert (found.what, found.provider, found.model, found.budget_usd) == (For.trial, "openai", "gpt-x", None)
    err = capsys.readouterr().err
    for said in ("'0' is none of them; type 1 to 4", "there is no provider 'nobody'", "there is no default; type a name"):
        assert said in err
    answers(monkeypatch, "-3", "1e9", "general")
    found = answered(Wanted(folder=tmp_path / "new", what=For.trial, provider="anthropic", model="claude-haiku-5-5"))
    assert found.budget_usd == 1e9
    assert "'-3' is no amount" in capsys.readouterr().err
    answers(monkeypatch)
    with pytest.raises(Fix, match="the input ended"):
        answered(Wanted(folder=tmp_path / "new"))


def test_what_options_say_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch)
    wanted = Wanted(folder=tmp_path, what=For.trial, provider="simulated", constitution="general")
    assert answered(wanted) == wanted
