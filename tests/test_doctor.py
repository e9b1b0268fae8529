"""`cai doctor`: what stands between a machine and a run, against real servers on this machine; no key is ever shown."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from loopback import Server
from outside import JUST_GENERATE, Cai, at, files_that_hold, questions, write_config, write_rows
from outside import cai as command

from cai_cli.engine.doctor import connection, machine, question
from cai_cli.providers._keys import check_address

Checks = dict[str, dict[str, Any]]


@pytest.fixture
def doctor(cai: Cai, tmp_path: Path) -> Callable[..., tuple[int, Checks]]:
    """Runs it on a config. Gives: the exit code, and the checks by what was looked at"""
    write_rows(tmp_path / "prompts.jsonl", questions(3))

    def run(*args: object, **sections: Any) -> tuple[int, Checks]:
        write_config(tmp_path, **{**JUST_GENERATE, **sections})
        code, out, _ = cai("doctor", "c.yaml", "--json", *args)
        found = json.loads(out)
        assert found["exit"] == code
        return code, {one["what"]: one for one in found["checks"]}

    return run


def test_without_a_config_the_machine_and_its_keys_are_told(cai: Cai, canary: str) -> None:
    code, out, err = cai("doctor")
    assert code == 0
    assert err.startswith("cai: nothing in the way")
    assert f"the key that ends in {canary[-4:]}, from ANTHROPIC_API_KEY" in out
    assert canary[:-4] not in out + err
    whats = [line.split()[1] for line in out.splitlines() if line.split()[0] in ("ok", "warn", "fail")]
    assert whats == ["python", "packages", "extras", "files", "terminal", "key", "key", "key"]


def test_the_built_in_model_has_nothing_in_its_way_and_nothing_is_written(doctor: Any, tmp_path: Path) -> None:
    code, checks = doctor()
    assert (code, {one["mark"] for one in checks.values()}) == (0, {"ok"})
    assert checks["provider simulated"]["detail"].startswith("small-world: built in")
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".cai*")) == []


def test_a_server_is_reached_and_its_model_looked_up_without_a_paid_request(doctor: Any, server: Server) -> None:
    code, checks = doctor(model=at(server.url))
    assert code == 0
    assert checks["model small-world"]["max_tokens"] == 64_000
    reached = checks[f"server {server.url.removeprefix('http://')}"]
    assert (reached["status"], reached["proxy"]) == (200, False)
    assert {"dns_ms", "tcp_ms", "answer_ms"} <= reached.keys()
    assert abs(checks["clock"]["skew_s"]) <= 2
    assert server.stats()["total"] == 0


def test_ask_puts_one_question_and_says_what_the_model_can_do(doctor: Any, server: Server) -> None:
    for provider, env_told in (("anthropic", False), ("openai", True)):
        os.environ["OPENAI_API_KEY"] = "sk-a-key-for-a-test"
        try:
            _, checks = doctor("--ask", model=at(server.url, provider=provider), critique={}, revise={})
        finally:
            del os.environ["OPENAI_API_KEY"]
        asked = checks["ask small-world"]
        assert (asked["structured_output"], asked["log_probabilities"]) == (True, env_told)
        assert asked["answered_by"] == "small-world"
        assert server.stats()["total"] == (
            1 if provider == "anthropic" else 2
        )  # three stages ask the same model with the same settings


def test_a_model_that_the_server_has_not_is_named_with_those_that_it_has(doctor: Any, server: Server) -> None:
    server.reset(models=["big-world", "wide-world"])
    code, checks = doctor(model=at(server.url, name="big-wrld"))
    assert code == 2
    assert checks["model big-wrld"]["hint"] == "did you mean 'big-world'?"
    assert checks["model big-wrld"]["offered"] == ["big-world", "wide-world"]


def test_a_reply_longer_than_the_model_gives_is_found_before_it_is_asked_for(doctor: Any, server: Server) -> None:
    code, checks = doctor(model=at(server.url, max_tokens=65_000))
    assert (code, checks["max_tokens small-world"]["hint"]) == (2, "set model.max_tokens to 64000 or less")


def test_nobody_listening_is_69_and_says_so(doctor: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    begun = time.monotonic()
    code, checks = doctor(model=at(f"http://127.0.0.1:{port}"))
    assert (code, time.monotonic() - begun < 5) == (69, True)
    assert "connection refused" in checks[f"server 127.0.0.1:{port}"]["detail"]
    assert "start it" in checks[f"server 127.0.0.1:{port}"]["hint"]


def test_a_fleet_is_looked_at_server_by_server(doctor: Any, server: Server) -> None:
    code, checks = doctor(model=at(server.url) | {"base_url": [server.url, "http://127.0.0.1:9"]})
    assert code == 69
    marks = {what: one["mark"] for what, one in checks.items() if what.startswith("server")}
    assert marks == {f"server {server.url.removeprefix('http://')}": "ok", "server 127.0.0.1:9": "fail"}


def test_offline_reaches_nobody(doctor: Any, server: Server) -> None:
    code, checks = doctor("--offline", model=at("http://127.0.0.1:9", name="claude-sonnet-4-5"))
    assert (code, checks["model claude-sonnet-4-5"]["retires"]) == (0, "2026-11-30")
    assert not [what for what in checks if what.startswith(("server", "clock"))]


def test_a_slip_in_a_models_name_is_named_where_its_price_is_missing(doctor: Any) -> None:
    _, checks = doctor("--offline", model=at("http://127.0.0.1:9", name="claude-sonnet-5.5"))
    assert checks["price claude-sonnet-5.5"]["hint"].startswith("did you mean 'claude-sonnet-5-5'? if not, set model.price")


# A server that says what it is told to


@contextlib.contextmanager
def answering(
    status: int = 200, body: Any = None, date: float = 0.0, wait_s: float = 0.0, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Answers every GET so. `date`: seconds that its clock is ahead. Gives: its URL"""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(wait_s)
            data = json.dumps(body).encode()
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + date, usegmt=True))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that distrusts it hangs up
        if tls:
            http.socket = tls.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"{'https://localhost' if tls else 'http://127.0.0.1'}:{http.server_address[1]}"
        http.shutdown()


def info(**more: Any) -> dict[str, Any]:
    return {"data": [{"id": "small-world", "type": "model", "lifecycle": "active", **more}]}


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [(401, 77, "refused the key that ends in"), (503, 69, "with 503"), (302, 69, "redirects"), (429, 0, "with 429")],
)
def test_what_a_server_refuses_has_the_exit_code_that_a_run_would_have(
    doctor: Any, status: int, code: int, said: str, canary: str
) -> None:
    with answering(status, {"error": {"type": "x", "message": f"Bearer {canary}"}}) as url:
        found, checks = doctor(model=at(url))
    assert found == code
    (one,) = [one for what, one in checks.items() if what.startswith("server")]
    assert said in one["detail"]
    assert canary not in json.dumps(checks)


def test_a_server_that_lists_no_models_is_no_failure(doctor: Any) -> None:
    with answering(404, {}) as url:
        code, checks = doctor(model=at(url))
    assert (code, checks["model small-world"]["mark"]) == (0, "warn")
    assert "--ask" in checks["model small-world"]["hint"]


@pytest.mark.parametrize(
    ("told", "code", "mark", "said"),
    [
        ({"lifecycle": "deprecated", "retires_at": "2031-05-01T00:00:00Z"}, 0, "warn", "closed to new users until 2031-05-01"),
        ({"lifecycle": "retired"}, 2, "fail", "retired: requests fail"),
        ({"capabilities": {"structured_outputs": {"supported": True}, "batch": {"supported": False}}}, 0, "ok",
         "structured output: yes, batches: no"),
        ({"max_input_tokens": 1000, "max_tokens": "many"}, 0, "ok", "1,000 tokens in"),
    ],
)  # fmt: skip
def test_what_a_server_tells_of_a_model_is_told(doctor: Any, told: Any, code: int, mark: str, said: str) -> None:
    with answering(200, info(**told)) as url:
        found, checks = doctor(model=at(url))
    assert (found, checks["model small-world"]["mark"]) == (code, mark)
    assert said in checks["model small-world"]["detail"]


@pytest.mark.parametrize("body", [None, [], {"data": 3}, {"data": [3, {"id": 4}]}, {"data": [{"id": "small-world"}]}])
def test_whatever_the_list_of_models_is_it_is_no_bug(doctor: Any, body: Any) -> None:
    with answering(200, body) as url:
        assert doctor(model=at(url))[0] in (0, 2)


def test_rate_limits_are_told_as_people_read_them() -> None:
    said = {"anthropic-ratelimit-input-tokens-limit": "40000", "anthropic-ratelimit-input-tokens-remaining": "3",
            "x-ratelimit-limit-requests": "50", "x-ratelimit-limit-tokens": "many"}  # fmt: skip
    assert question.in_words(said) == "40,000 input tokens, 50 requests"


def test_clocks_that_differ_are_told(doctor: Any) -> None:
    with answering(200, info(), date=-300) as url:
        code, checks = doctor(model=at(url))
    assert (code, checks["clock"]["mark"]) == (0, "warn")
    assert 295 <= checks["clock"]["skew_s"] <= 305
    assert "ahead of" in checks["clock"]["detail"]


def test_a_server_that_does_not_answer_is_given_up_in_seconds(doctor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, info(), wait_s=7) as url:
        begun = time.monotonic()
        code, checks = doctor(model=at(url))
        took_s = time.monotonic() - begun
    assert (code, took_s < 7) == (69, True)
    assert "did not answer within 5 s" in checks[f"server {url.removeprefix('http://')}"]["detail"]


def test_an_address_that_no_connection_should_go_to_is_refused() -> None:
    with pytest.raises(connection.Unreached, match="link-local"):
        asyncio.run(connection._resolved("169.254.169.254", 80))
    with pytest.raises(connection.Unreached, match="is not known"):
        asyncio.run(connection._resolved("no such name", 80))


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
def test_a_certificate_that_nobody_trusts_is_told_and_one_that_is_named_is_taken(
    doctor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost", "-keyout", "key", "-out", "cert"]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True, cwd=tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with answering(200, info(), tls=tls) as url:
        what = f"server {url.removeprefix('https://')}"
        code, checks = doctor(model=at(url))
        assert (code, "certificate is not trusted" in checks[what]["detail"]) == (69, True)
        assert "SSL_CERT_FILE" in checks[what]["hint"]
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
        way = asyncio.run(connection.opened(check_address(url, ""), None))
        assert (way.facts["tls"], way.facts["ip"]) == ("TLSv1.3", "127.0.0.1")
    with answering(200, info()) as url:
        code, checks = doctor(model=at(url.replace("http:", "https:")))
    assert (code, "http://" in checks[f"server {url.removeprefix('http://')}"]["hint"]) == (69, True)


# Keys


KEYS = {"ANTHROPIC_API_KEY": "sk-ant-first-of-all-1111", "ANTHROPIC_AUTH_TOKEN": "token-that-is-second-2222"}


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (KEYS, "ends in 1111, from ANTHROPIC_API_KEY; also there, and not used: ANTHROPIC_AUTH_TOKEN (ends in 2222)"),
        ({"ANTHROPIC_AUTH_TOKEN": KEYS["ANTHROPIC_AUTH_TOKEN"]}, "ends in 2222, from ANTHROPIC_AUTH_TOKEN"),
        ({"ANTHROPIC_CUSTOM_HEADERS": "Authorization: Bearer abcdefghijkl"}, "the credentials in ANTHROPIC_CUSTOM_HEADERS"),
        ({**KEYS, "ANTHROPIC_PROFILE": "work"}, "ANTHROPIC_PROFILE 'work'"),
        ({**KEYS, "ANTHROPIC_FEDERATION_RULE_ID": "r"}, "workload identity"),
        ({}, "none: looked at ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN, ANTHROPIC_PROFILE, workload identity"),
        ({"ANTHROPIC_API_KEY": "sk-a b"}, "holds characters that no key has"),
        ({"ANTHROPIC_PROFILE": "nowhere"}, "Anthropic's credentials"),
    ],
)  # fmt: skip
def test_every_way_to_a_key_is_looked_at_and_the_winner_named(
    cai: Cai, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], said: str
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    code, out, err = cai("doctor", "--json")
    (found,) = [one for one in json.loads(out)["checks"] if one["what"] == "key anthropic"]
    assert said in found["detail"]
    assert found["mark"] == ("warn" if not env else "fail" if code else "ok")
    assert code == (77 if "characters" in said or "credentials: " in found["detail"] else 0)
    assert not [value for name, value in env.items() if len(value) > 8 and value in out + err]


def test_addresses_and_headers_of_the_environment_are_told_without_their_values(
    cai: Cai, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://models.example.org")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Team: the-secret-team")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://models.example.org")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    code, out, _ = cai("doctor", "--json")
    found = {one["what"]: one for one in json.loads(out)["checks"]}
    assert code == 2
    assert (found["ANTHROPIC_BASE_URL"]["mark"], found["OPENAI_BASE_URL"]["mark"]) == ("warn", "fail")
    assert found["ANTHROPIC_CUSTOM_HEADERS"]["headers"] == ["x-team"]
    assert "the-secret-team" not in out
    assert found["key hub"]["source"] == "HF_TOKEN"
    assert "hf_abcdefghijkl" not in out


def test_a_missing_key_is_77_with_what_to_type(doctor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    code, checks = doctor(model={"provider": "anthropic", "name": "claude-haiku-5-5"})
    assert (code, checks["key anthropic"]["mark"]) == (77, "fail")
    assert checks["key anthropic"]["hint"].startswith("export ANTHROPIC_API_KEY=...")


def test_no_output_and_no_file_holds_a_key(server: Server, tmp_path: Path, canary: str) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(3))
    write_config(tmp_path, model=at(server.url))
    for more in ((), ("--ask",), ("--offline",), ("--json",)):
        done = command(tmp_path, "doctor", "c.yaml", *more)
        assert done.code == 0
        for part in (canary, canary[:-4], canary[4:]):
            assert part not in done.out + done.err
    assert files_that_hold(canary[:-4], tmp_path) == []


# Disk, lock, ledger, machine


def test_a_config_with_mistakes_is_told_beside_the_machine(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: x\noutput: out\ngenerat: {}\nseed: many\n")
    code, out, _ = cai("doctor", "c.yaml", "--json")
    wrong = [one for one in json.loads(out)["checks"] if one["what"] == "config"]
    assert (code, len(wrong)) == (2, 2)
    assert "c.yaml:3: unknown key 'generat'" in wrong[0]["detail"]
    assert "python" in [one["what"] for one in json.loads(out)["checks"]]


def test_a_held_output_is_named_with_its_holder_and_left_alone(doctor: Any, tmp_path: Path) -> None:
    lock = tmp_path / "out" / ".cai" / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump({"pid": os.getpid(), "host": "h", "since": "2026-01-02 03:04:05", "command": "cai run c.yaml"}, file)
        file.flush()
        code, checks = doctor()
    assert code == 75
    assert f"process {os.getpid()} on h since 2026-01-02 03:04:05" in checks["lock"]["holder"]
    assert doctor()[1]["lock"]["mark"] == "ok"


def test_a_ledger_is_counted_and_a_damaged_one_told(doctor: Any, cai: Cai, tmp_path: Path) -> None:
    doctor()
    assert cai("run", "c.yaml", "-q")[0] == 0
    code, checks = doctor()
    assert (code, checks["ledger"]["replies"], checks["ledger"]["checked_whole"]) == (0, 6, True)
    ledger = tmp_path / "out" / ".cai" / "ledger.sqlite"
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:4096] + b"\xff" * 2048 + whole[6144:])
    code, checks = doctor()
    assert (code, checks["ledger"]["mark"]) == (74, "fail")
    ledger.write_bytes(whole)
    with contextlib.closing(sqlite3.connect(ledger)) as db:
        db.execute("PRAGMA user_version=99")
        db.commit()
    code, checks = doctor()
    assert (code, checks["ledger"]["hint"]) == (2, "pip install --upgrade cai-cli")


@pytest.mark.parametrize("place", ["/proc/nowhere/out", "prompts.jsonl/out"])
def test_a_folder_that_cannot_be_written_is_told(doctor: Any, place: str) -> None:
    code, checks = doctor("-o", place)
    assert (code, checks["disk output"]["mark"]) == (74, "fail")


def test_more_requests_at_once_than_open_files_are_told(doctor: Any) -> None:
    code, checks = doctor(limits={"concurrency": 10_000_000})
    assert (code, checks["files"]["mark"]) == (0, "warn")
    assert "limits.concurrency" in checks["files"]["hint"] or "ulimit" in checks["files"]["hint"]


def test_what_the_project_requires_is_what_is_looked_at() -> None:
    needs = [*machine._needs()]
    assert {"anthropic", "typer", "datasets"} <= {need.name for need in needs if not need.extra}
    assert {need.extra for need in needs if need.extra} == {"bedrock", "vertex", "zstd"}
    assert machine._lacks(machine.Need("rich", "999", ""), "15.0.0")
    assert machine._lacks(machine.Need("rich", "1", ""), "")
    assert not machine._lacks(machine.Need("rich", "15.0", ""), "15.0.0")


@pytest.mark.parametrize("args", [("c.yaml", "--ask", "--offline"), ("--ask",), ("-o", "x")])
def test_options_that_contradict_each_other_are_refused(cai: Cai, args: tuple[str, ...]) -> None:
    code, out, err = cai("doctor", *args)
    assert (code, out) == (2, "")
    assert "hint: " in err
