"""Which key goes where: addresses, the order of keys (the SDK's), and that none is shown."""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import anthropic
import httpx2
import pytest

from cai_cli.errors import Exit, Fatal, Fix, Retry
from cai_cli.providers._keys import Key, StaticKey, anthropic_key, check_address, custom_headers, key_from

OWN = "api.anthropic.com"
CANARY = "canary-key-that-nobody-may-see-wxyz"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


# Addresses.


@pytest.mark.parametrize(
    ("url", "host", "place"),
    [
        ("https://api.anthropic.com", "api.anthropic.com", "own"), ("https://API.Anthropic.com./v1/", "api.anthropic.com", "own"),
        ("http://localhost:8000", "localhost:8000", "loopback"), ("http://127.0.0.1:1/", "127.0.0.1:1", "loopback"),
        ("http://127.1", "127.0.0.1", "loopback"), ("http://0x7f000001", "127.0.0.1", "loopback"),
        ("http://[::1]:80", "[::1]:80", "loopback"), ("http://[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "loopback"),
        ("https://api.anthropic.com.example", "api.anthropic.com.example", "other"), ("https://10.0.0.7", "10.0.0.7", "other"),
        ("https://localhost.example", "localhost.example", "other"), ("https://my_server:8443/x", "my_server:8443", "other"),
    ],
)  # fmt: skip
def test_addresses(url: str, host: str, place: str) -> None:
    found = check_address(url, OWN)
    assert (found.host, found.place) == (host, place)
    assert not found.url.endswith("/")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://eu.api.openai.com", "own"), ("https://api.openai.com", "own"), ("https://evilapi.openai.com", "other"),
        ("https://api.openai.com.example", "other"), ("https://openai.com", "other"),
    ],
)  # fmt: skip
def test_hosts_within_a_domain_may_be_the_providers_own(url: str, place: str) -> None:
    assert check_address(url, "api.openai.com", within="api.openai.com").place == place
    assert check_address("https://eu.api.openai.com", "api.openai.com").place == "other"


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254", "https://169.254.169.254.", "https://2852039166", "https://0xA9FEA9FE",
        "https://0251.0376.0251.0376",
        "https://169.254.43518", "https://[fe80::1]", "https://[fe80::1%25eth0]", "https://[febf::1]",
        "https://[::ffff:169.254.169.254]",
        "https://[::ffff:a9fe:a9fe]", "https://[64:ff9b::a9fe:a9fe]", "https://[2002:a9fe:a9fe::]", "https://[::169.254.169.254]",
    ],
)  # fmt: skip
def test_link_local_is_refused_in_every_notation(url: str) -> None:
    with pytest.raises(Fix, match="link-local"):
        check_address(url, OWN, allow_http=True)


@pytest.mark.parametrize(
    "url",
    [
        "", "models.example", "ftp://models.example", "file:///etc/passwd", "https://", "https:///v1", "https://a b",
        "https://models.example:x",
        "https://models.example:99999", "https://me:secret-word@models.example", "https://me@models.example", "https://[::1",
        "https://127.0.0.1\\@models.example", "https://models.example/?key=1", "https://models.example#x",
        "https://mod\u00e9ls.example",
        "https://\uff11\uff16\uff19.254.169.254", "https://a..b", "https://-a.example", "https://models.example\n",
        f"https://{'a' * 64}.de",
    ],
)  # fmt: skip
def test_what_is_no_plain_address_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(Fix) as caught:
        check_address(url, OWN)
    assert caught.value.code is Exit.USAGE
    assert caught.value.hint
    assert "secret-word" not in caught.value.message


@pytest.mark.parametrize("url", ["http://models.example", "http://api.anthropic.com", "http://10.0.0.7:8000"])
def test_plain_http_leaves_this_machine_only_when_asked(url: str) -> None:
    with pytest.raises(Fix, match="plain http"):
        check_address(url, OWN)
    assert check_address(url, OWN, allow_http=True).scheme == "http"


# Keys.


def test_a_key_shows_its_last_four_characters_at_most() -> None:
    key = StaticKey(CANARY, "SOME_KEY")
    assert key.label == "the key that ends in wxyz, from SOME_KEY"
    assert CANARY not in repr(key) + str(key)
    assert "short" in StaticKey("hunter2", "SOME_KEY").label
    assert "nter2" not in StaticKey("hunter2", "SOME_KEY").label


def test_white_space_around_a_key_is_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", f" {CANARY}\n")
    found = key_from("SOME_KEY")
    assert found is not None
    assert found.value == CANARY


@pytest.mark.parametrize("value", ["two words " + CANARY, "line\nbreak " + CANARY, "quote\u201d" + CANARY])
def test_what_no_header_can_carry_is_no_key(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SOME_KEY", value)
    with pytest.raises(Fix, match="SOME_KEY") as caught:
        key_from("SOME_KEY")
    assert caught.value.code is Exit.KEY
    assert CANARY not in caught.value.message


def test_another_host_gets_the_key_that_is_named_for_it_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    other = check_address("https://models.example", OWN)
    with pytest.raises(Fix, match=r"no key is named for models\.example") as caught:
        anthropic_key(other, "")
    assert caught.value.code is Exit.KEY
    assert "key_env" in caught.value.hint
    with pytest.raises(Fix, match="MODELS_KEY") as caught:
        anthropic_key(other, "MODELS_KEY")
    assert caught.value.code is Exit.KEY
    monkeypatch.setenv("MODELS_KEY", "another-key")
    assert anthropic_key(other, "MODELS_KEY") == StaticKey("another-key", "MODELS_KEY")


def test_a_named_key_comes_first_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    monkeypatch.setenv("SECOND_ACCOUNT", "another-key")
    assert anthropic_key(check_address(f"https://{OWN}", OWN), "SECOND_ACCOUNT") == StaticKey("another-key", "SECOND_ACCOUNT")


def test_custom_headers_keep_credentials_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Team: blue: 7\nAuthorization: Bearer x\nX-API-Key: y\n\nnonsense\n: z")
    at_home = custom_headers(check_address(f"https://{OWN}", OWN))
    assert at_home == {"x-team": "blue: 7", "authorization": "Bearer x", "x-api-key": "y"}
    assert custom_headers(check_address("https://models.example", OWN)) == {"x-team": "blue: 7"}


@pytest.mark.parametrize("line", ["X Team: blue", "X-Team: bl\u00fce", "X-Team: a\x0bb"])
def test_a_custom_header_that_http_cannot_carry_is_named(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", line)
    with pytest.raises(Fix, match=r"x.team"):
        custom_headers(check_address(f"https://{OWN}", OWN))


# The order of keys, held against the SDK in the same environment.


class TokenServer(BaseHTTPRequestHandler):
    """Changes an identity token into an access token."""

    STATUS = 200

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"access_token": "from-workload-identity", "token_type": "Bearer", "expires_in": 3600}).encode()
        self.send_response(self.STATUS)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def token_server() -> Iterator[str]:
    with listening(TokenServer) as url:
        yield url


@contextmanager
def listening(handler: type[TokenServer]) -> Iterator[str]:
    """A token server for the time of a test. Gives: its URL"""
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_profile(folder: Path, name: str, base_url: str = "") -> None:
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "credentials").mkdir(exist_ok=True)
    config = {"authentication": {"type": "user_oauth"}, "workspace_id": f"workspace-{name}"} | (
        {"base_url": base_url} if base_url else {}
    )
    (folder / "configs" / f"{name}.json").write_text(json.dumps(config))
    credentials = folder / "credentials" / f"{name}.json"
    credentials.touch(mode=0o600)
    credentials.write_text(json.dumps({"access_token": f"from-profile-{name}"}))


def sent_by_sdk(base_url: str) -> dict[str, str]:
    seen: dict[str, str] = {}

    def answer(sent: httpx2.Request) -> httpx2.Response:
        seen.update(sent.headers)
        return httpx2.Response(500, content=b"{}")

    http = anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(answer))
    client = anthropic.Anthropic(base_url=base_url, http_client=http, max_retries=0)
    with pytest.raises(anthropic.InternalServerError):
        client.messages.create(model="m", max_tokens=8, messages=[{"role": "user", "content": "x"}])
    return seen


def sent_by_us(key: Key | None) -> dict[str, str]:
    assert key is not None
    return asyncio.run(key.headers())


WORKLOAD = {"ANTHROPIC_IDENTITY_TOKEN": "jwt", "ANTHROPIC_FEDERATION_RULE_ID": "fdrl_1", "ANTHROPIC_ORGANIZATION_ID": "org_1"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ANTHROPIC_API_KEY": "from-key"}, "from-key"),
        ({"ANTHROPIC_AUTH_TOKEN": "from-token"}, "from-token"),
        ({"ANTHROPIC_API_KEY": "from-key", "ANTHROPIC_AUTH_TOKEN": "from-token"}, "from-key"),
        ({"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "from-token"}, "from-token"),
        ({"ANTHROPIC_API_KEY": "from-key", "ANTHROPIC_PROFILE": "work"}, "from-key"),
        ({"ANTHROPIC_AUTH_TOKEN": "from-token", **WORKLOAD}, "from-token"),
        ({"ANTHROPIC_PROFILE": "work"}, "from-profile-work"),
        ({"ANTHROPIC_PROFILE": "work", **WORKLOAD}, "from-profile-work"),
        (WORKLOAD, "from-workload-identity"),
        ({}, "from-profile-default"),
    ],
)
def test_keys_are_found_in_the_sdks_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token_server: str, environment: dict[str, str], expected: str
) -> None:
    for name in ("work", "default"):
        write_profile(tmp_path / ".config" / "anthropic", name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    theirs = sent_by_sdk(token_server)
    ours = sent_by_us(anthropic_key(check_address(token_server, OWN), ""))
    assert ours["authorization"] == f"Bearer {expected}"
    assert ours == {name: theirs[name] for name in ours}
    assert {
        name for name in theirs if name in ("authorization", "x-api-key", "anthropic-beta", "anthropic-workspace-id")
    } == ours.keys()


def test_the_active_profile_is_found_where_the_config_folder_was_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_profile(tmp_path / "moved", "team")
    (tmp_path / "moved" / "active_config").write_text("team")
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path / "moved"))
    key = anthropic_key(check_address(f"https://{OWN}", OWN), "")
    assert sent_by_us(key)["authorization"] == "Bearer from-profile-team"
    assert key is not None
    assert "from-profile-team" not in repr(key) + key.label


def test_a_broken_profile_that_was_named_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_PROFILE", "gone")
    with pytest.raises(Fix, match="gone") as caught:
        anthropic_key(check_address(f"https://{OWN}", OWN), "")
    assert caught.value.code is Exit.KEY


def test_a_profile_without_a_token_stops_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_profile(tmp_path / ".config" / "anthropic", "work")
    (tmp_path / ".config" / "anthropic" / "credentials" / "work.json").write_text("{}")
    monkeypatch.setenv("ANTHROPIC_PROFILE", "work")
    with pytest.raises(Fatal) as caught:
        sent_by_us(anthropic_key(check_address(f"https://{OWN}", OWN), ""))
    assert caught.value.code is Exit.KEY
    assert caught.value.hint


def no_token(monkeypatch: pytest.MonkeyPatch, base_url: str) -> Retry:
    """What is raised where workload identity gets no token from the server at `base_url`."""
    for name, value in WORKLOAD.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Retry) as caught:
        sent_by_us(anthropic_key(check_address(base_url, OWN), ""))
    return caught.value


@pytest.mark.parametrize("status", [429, 503])
def test_a_token_server_that_cannot_answer_now_is_waited_for(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    class Overloaded(TokenServer):
        STATUS = status

    with listening(Overloaded) as url:
        found = no_token(monkeypatch, url)
    assert (found.kind, found.detail) == ("server", f"the token server answered {status}")


def test_a_token_server_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(TokenServer) as url:
        pass  # a port that nobody listens on any more
    found = no_token(monkeypatch, url)
    assert (found.kind, found.detail) == ("connection", "the token server cannot be reached")


def test_without_any_sign_of_a_key_there_is_none() -> None:
    assert anthropic_key(check_address(f"https://{OWN}", OWN), "") is None
