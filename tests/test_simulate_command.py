"""`cai simulate` as a command: what it prints, how it ends, what it refuses; and a run against it as one in this process."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from loopback import serve
from outside import Cai, cai, finish, questions, rows_of, start, write_config, write_rows

from cai_cli.errors import Fix
from cai_cli.simulate.chat import duration
from cai_cli.simulate.faults import STATUSES, WRECKS, Fault


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_says_what_to_type_next_and_ends_well_when_told_to(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, "simulate", "--port", 0)
    assert process.stdout is not None
    lines = [process.stdout.readline().decode() for _ in range(3)]
    url = lines[0].split(" at ")[1].split()[0]
    variables = {"ANTHROPIC": url, "OPENAI": f"{url}/v1"}
    assert lines[1:] == [f"  export {name}_BASE_URL={base} {name}_API_KEY=anything\n" for name, base in variables.items()]
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 5):  # one that is open does not keep it
        process.send_signal(number)
        done = finish(process)
    assert (done.code, done.out, done.err) == (0, "", "")


def test_as_json_it_prints_one_object_and_with_its_parent_it_ends(tmp_path: Path) -> None:
    done = cai(tmp_path, "simulate", "--port", 0, "--json", "--with-parent", stdin=b"")
    assert done.code == 0
    said = json.loads(done.out)
    assert said["url"] == f"http://127.0.0.1:{said['port']}"


def test_it_answers_this_machine_only(tmp_path: Path) -> None:
    with serve() as server:
        listening = Path(f"/proc/{server.pid}/net/tcp").read_text().split("\n")[1:]
        addresses = [line.split()[1] for line in listening if line and line.split()[1].endswith(f":{server.port:04X}")]
        assert {address.partition(":")[0] for address in addresses} == {"0100007F"}


def test_a_port_that_is_taken_is_told(cai: Cai) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = cai("simulate", "--port", port)
    assert (code, out) == (2, "")
    assert err == (
        f"error: cannot listen on 127.0.0.1:{port}: address already in use\nhint: take any free port: cai simulate --port 0\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fail", "530@1"], "--fail 530@1: write KIND"), (["--fail", "drip:slow"], "'slow' is no argument of drip"),
        (["--fail", "stop@1"], "a stop needs a reason"), (["--world", "harm"], "this is no setting"),
        (["--world", '{"harm":'], "this is no JSON"), (["--world", "refusal_rat=1"], "did you mean 'refusal_rate'?"),
        (["--world", "harm=2"], "must be between 0 and 1"), (["--rate", "1", "--rpm", "60"], "rate and rpm both"),
        (["--ids", "odd"], "'ids' cannot be 'odd'"), (["--rate", "inf"], "'rate' cannot be inf"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_followed_are_refused(cai: Cai, arguments: list[str], said: str) -> None:
    code, out, err = cai("simulate", "--port", 0, *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_worlds_are_written_as_settings_or_as_json() -> None:
    with serve(world=["refusal_rate=1", '{"reported_model": "other"}']) as server:
        server.reset()
        body = json.dumps({"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}]}).encode()
        asked = urllib.request.Request(f"{server.url}/v1/messages", body, {"x-api-key": "any"})
        with urllib.request.urlopen(asked, timeout=5) as reply:
            found = json.load(reply)
    assert (found["stop_reason"], found["model"]) == ("refusal", "other")


def test_every_kind_of_failure_is_in_the_help_and_can_be_read_back(cai: Cai) -> None:
    code, out, _ = cai("simulate", "-h")
    assert code == 0
    arguments = {"stop": ":pause_turn"}
    for kind in [*map(str, STATUSES), *WRECKS]:
        assert f" {kind}" in out
        for mode, when in (
            ("", ""),
            ("@", "3"),
            ("@", "3-"),
            ("@", "3-9"),
            ("%", "0.5"),
            ("%", ".5"),
            ("^", "2"),
            ("~", "a text"),
        ):
            fault = Fault.parse(f"{kind}{arguments.get(kind, '')}{mode}{when}")
            assert (fault.kind, fault.mode, fault.when) == (kind, mode, when)
    with pytest.raises(Fix):
        Fault.parse("500%1.2.3")


@pytest.mark.parametrize(("seconds", "said"), [(0, "0ms"), (0.0204, "20ms"), (1, "1s"), (59.6, "1m0s"), (150, "2m30s")])
def test_durations_are_written_as_these_headers_have_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


# A run against it


def test_one_sample_a_prompt_gives_the_same_rows_in_this_process_and_over_http(tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(12))
    sections: dict[str, Any] = {"generate": {"samples": 1}, "label_pairs": None, "debias": None}
    with serve() as server:
        for provider in ("simulated", "anthropic", "openai"):
            model = {"provider": provider, "name": "small-world"} | ({} if provider == "simulated" else {"base_url": server.url})
            write_config(tmp_path, output=provider, model=model, **sections)
            done = cai(tmp_path, "run", "c.yaml", "--json", env={"OPENAI_API_KEY": "sk-test"})
            assert done.code == 0, done.err
        assert server.stats()["statuses"].keys() == {"200"}
    for stage in ("generate", "critique", "revise"):
        here, *there = (rows_of(tmp_path / name / stage / "latest") for name in ("simulated", "anthropic", "openai"))
        assert len(here) == 12
        assert there == [here, here]
