"""Bedrock and Vertex, against servers on this machine: how requests are addressed and signed, and what each failure means."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from answering import MESSAGE, Answer, Asked, Server, request, status, well
from outside import PYTHONPATH

from cai_cli.errors import Exit, Fatal, Fix, Reject, Retry
from cai_cli.flow import Model, Reply
from cai_cli.providers import connect

pytest.importorskip("boto3", reason="the extra bedrock is not installed")
pytest.importorskip("google.auth", reason="the extra vertex is not installed")

SECRET = "canary-secret-that-nobody-may-see-wxyz"
NAMES = {"bedrock": "anthropic.claude-x-v1:0", "vertex": "claude-x@20260101"}
PATHS = {
    "bedrock": "/model/anthropic.claude-x-v1:0/invoke",
    "vertex": "/v1/projects/proj-1/locations/eu-west-9/publishers/anthropic/models/claude-x@20260101:rawPredict",
}
BODY = {"max_tokens": 64, "messages": [{"role": "user", "content": "How?"}], "anthropic_version": "2026-10-21"}
CLOUDS = ("bedrock", "vertex")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prefixes = ("AWS_", "ANTHROPIC_", "GOOGLE_", "CLOUD", "GCE_", "NO_GCE")
    for name in [name for name in os.environ if name.startswith(prefixes) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("AWS_REGION", "eu-west-9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("CLOUD_ML_REGION", "eu-west-9")
    monkeypatch.setenv("ANTHROPIC_VERTEX_PROJECT_ID", "proj-1")
    monkeypatch.setenv("A_TOKEN", SECRET)


def model(cloud: str, *urls: str, token: bool = True, **params: Any) -> Model:
    """`token`: with a bearer token in A_TOKEN, the way that needs no library's help."""
    return Model(provider=cloud, name=NAMES[cloud], params={"max_tokens": 64, **params}, base_urls=urls,
                 key_env="A_TOKEN" if token else "")  # fmt: skip


def asked_of(
    cloud: str, answer: Answer = well, token: bool = True, deadline_s: float = 10.0, **params: Any
) -> tuple[Reply, Asked]:
    """The reply to one request to a server that answers like this, and what it was sent."""

    async def main() -> tuple[Reply, Asked]:
        async with Server(answer) as server:
            base = server.url + ("/v1" if cloud == "vertex" else "")
            provider = connect(model(cloud, base, token=token, **params))
            try:
                reply = await provider.send(request(model(cloud, base, **params)), deadline_s)
            finally:
                await provider.close()
            return reply, server.asked[0]

    return asyncio.run(main())


# What is sent.


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_request_is_addressed_as_the_cloud_wants_it(cloud: str) -> None:
    reply, asked = asked_of(cloud, world={"noise": 1})
    assert (reply.text, reply.model, reply.tokens_in, reply.tokens_out) == ("hello", "m-1", 3, 2)
    assert (asked.method, asked.path.replace("%3A", ":").replace("%40", "@"), asked.body) == ("POST", PATHS[cloud], BODY)
    assert asked.headers["authorization"] == f"Bearer {SECRET}"


def test_bedrock_is_sent_a_signature_and_no_secret() -> None:
    _, asked = asked_of("bedrock", token=False)
    assert asked.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/")
    assert "/eu-west-9/bedrock/aws4_request" in asked.headers["authorization"]
    assert {"x-amz-date"} <= asked.headers.keys()
    assert SECRET not in json.dumps([asked.headers, asked.body])


def test_bedrock_takes_its_own_bearer_token_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-token")
    assert asked_of("bedrock", token=False)[1].headers["authorization"] == "Bearer bedrock-token"


def service_account(folder: Path, token_uri: str) -> Path:
    """A service account as Google gives it out, whose tokens come from this machine."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    path = folder / "account.json"
    account = {"type": "service_account", "project_id": "proj-2", "private_key_id": "k1", "private_key": pem,
               "client_email": "robot@proj-2.example", "client_id": "1", "token_uri": token_uri}  # fmt: skip
    path.write_text(json.dumps(account))
    return path


def test_vertex_gets_a_token_for_a_service_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def main() -> tuple[str, list[str]]:
        async def answer(asked: web.BaseRequest) -> web.StreamResponse:
            token = {"access_token": "google-token", "expires_in": 3600, "token_type": "Bearer"}
            return web.json_response(token) if asked.path == "/token" else await well(asked)

        async with Server(answer) as server:
            account = service_account(tmp_path, f"{server.url}/token")
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
            asked_model = model("vertex", f"{server.url}/v1", token=False)
            provider = connect(asked_model)
            reply = await provider.send(request(asked_model), 10)
            await provider.close()
            return reply.text, [asked.headers.get("authorization", "") for asked in server.asked if asked.path != "/token"]

    assert asyncio.run(main()) == ("hello", ["Bearer google-token"])


@pytest.mark.parametrize(("answer", "expected"), [(status(400, {"error": "invalid_grant"}), Fatal), (status(200, {}), Fatal)])
def test_vertex_without_a_token_stops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Answer, expected: Any) -> None:
    async def main() -> None:
        async with Server(answer) as server:
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(tmp_path, f"{server.url}/token")))
            provider = connect(model("vertex", "http://127.0.0.1:9/v1", token=False))
            try:
                await provider.send(request(model("vertex")), 10)
            finally:
                await provider.close()

    with pytest.raises(expected) as caught:
        asyncio.run(main())
    assert caught.value.code is Exit.KEY


def test_vertex_waits_for_a_token_server_that_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(tmp_path, "http://127.0.0.1:9/token")))
    found = refused("vertex", well, token=False)
    assert isinstance(found, Retry)
    assert found.kind == "connection"


@pytest.mark.parametrize(("cloud", "version"), [("bedrock", "bedrock-2023-05-31"), ("vertex", "vertex-2023-10-16")])
def test_sampling_parameters_choose_the_version_that_takes_them(cloud: str, version: str) -> None:
    _, asked = asked_of(cloud, temperature=0.5)
    assert asked.body == {**BODY, "temperature": 0.5, "anthropic_version": version}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_anthropics_own_credentials_do_not_go_to_another_cloud(monkeypatch: pytest.MonkeyPatch, cloud: str) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "anthropics-own-key")
    monkeypatch.setenv(
        "ANTHROPIC_CUSTOM_HEADERS", "X-Api-Key: anthropics-own-key\nAuthorization: Bearer anthropics-own-key\nX-Team: blue"
    )
    _, asked = asked_of(cloud)
    assert asked.headers["x-team"] == "blue"
    assert "anthropics-own-key" not in json.dumps(asked.headers)
    assert asked.headers["authorization"] == f"Bearer {SECRET}"


# Before anything is sent.


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_clouds_own_address_is_the_default(cloud: str) -> None:
    own = {"bedrock": "bedrock-runtime.eu-west-9.amazonaws.com", "vertex": "eu-west-9-aiplatform.googleapis.com"}
    assert connect(model(cloud, token=False)).host == own[cloud]


def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BEDROCK_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_VERTEX_BASE_URL", "http://127.0.0.1:8/v1")
    assert [connect(model(cloud)).host for cloud in CLOUDS] == ["127.0.0.1:9", "127.0.0.1:8"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_another_host_gets_no_credential_that_was_not_named_for_it(cloud: str) -> None:
    with pytest.raises(Fix, match=r"no key is named for models\.example") as caught:
        connect(model(cloud, "https://models.example", token=False))
    assert caught.value.code is Exit.KEY
    with pytest.raises(Fix, match="takes one base_url"):
        connect(model(cloud, "http://127.0.0.1:9", "http://127.0.0.1:8"))
    with pytest.raises(Fix, match="link-local"):
        connect(model(cloud, "http://169.254.169.254"))


@pytest.mark.parametrize(
    ("cloud", "missing", "said"),
    [
        ("bedrock", ["AWS_REGION"], "no AWS region"), ("vertex", ["CLOUD_ML_REGION"], "CLOUD_ML_REGION is not set"),
        ("vertex", ["ANTHROPIC_VERTEX_PROJECT_ID"], "ANTHROPIC_VERTEX_PROJECT_ID or GOOGLE_CLOUD_PROJECT is not set"),
    ],
)  # fmt: skip
def test_what_the_environment_lacks_is_said(monkeypatch: pytest.MonkeyPatch, cloud: str, missing: list[str], said: str) -> None:
    for name in missing:
        monkeypatch.delenv(name)
    with pytest.raises(Fix, match=said) as caught:
        connect(model(cloud, "http://127.0.0.1:9"))
    assert caught.value.hint.startswith("export ")


@pytest.mark.parametrize(("cloud", "package"), [("bedrock", "boto3"), ("vertex", "google")])
def test_a_missing_package_is_said_with_what_to_type(cloud: str, package: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None\n"  # as the interpreter marks what cannot be imported
    code += "from cai_cli.errors import Fix; from cai_cli.flow import Model; from cai_cli.providers import connect\n"
    code += f"try: connect(Model(provider='{cloud}', name='m'))\nexcept Fix as fix: print(fix.hint)"
    env = os.environ | {"PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == f"pip install 'cai-cli[{cloud}]'\n"


# What comes back.


def refused(cloud: str, answer: Answer, token: bool = True, deadline_s: float = 10.0) -> Retry | Reject | Fatal:
    with pytest.raises((Retry, Reject, Fatal)) as caught:
        asked_of(cloud, answer, token, deadline_s)
    return caught.value


def own_certificate(folder: Path) -> ssl.SSLContext:
    """What a server of one's own has: a certificate that it signed itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, begun = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    signed = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), begun, begun + timedelta(days=1))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(pem + signed.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(path)
    return tls


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_certificate_that_nobody_trusts_stops_the_run(tmp_path: Path, cloud: str) -> None:
    async def main() -> None:
        async with Server(tls=own_certificate(tmp_path)) as server:
            provider = connect(model(cloud, server.url))
            try:
                await provider.send(request(model(cloud)), 10)
            finally:
                await provider.close()

    with pytest.raises(Fatal, match="its certificate is not trusted") as caught:
        asyncio.run(main())
    assert (caught.value.code, "SSL_CERT_FILE" in caught.value.hint) == (Exit.UNREACHABLE, True)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_failures_are_those_of_any_other_server(cloud: str) -> None:
    denied = refused(cloud, status(403, {"message": f"no access with {SECRET}"}))
    assert isinstance(denied, Fatal)
    assert (denied.code, "wxyz, from A_TOKEN" in denied.message, SECRET in repr(denied)) == (Exit.KEY, True, False)
    throttled = refused(cloud, status(429, {"message": "Too many tokens"}, Retry_After="7"))
    assert isinstance(throttled, Retry)
    assert (throttled.kind, throttled.after_s) == ("rate_limit", 7)
    bad = refused(cloud, status(400, {"message": f"bad body from {SECRET}"}))
    assert isinstance(bad, Reject)
    assert (bad.reason, bad.detail) == ("http_400", "bad body from ...")
    assert isinstance(gone := refused(cloud, status(404, {"message": "no such model"})), Fatal)
    assert NAMES[cloud] in gone.message
    assert isinstance(moved := refused(cloud, status(307, None, Location="http://elsewhere.example/")), Fatal)
    assert "elsewhere" in moved.message
    assert isinstance(down := refused(cloud, status(503, {"message": "busy"})), Retry)
    assert down.kind == "server"


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("body", [None, [], {"message": "ok"}, MESSAGE | {"content": "hello"}])
def test_a_200_that_is_no_message_is_asked_for_again(cloud: str, body: Any) -> None:
    assert isinstance(found := refused(cloud, status(200, body)), Retry)
    assert found.kind == "protocol"


async def never(asked: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def cut(asked: web.BaseRequest) -> web.StreamResponse:
    assert asked.transport is not None
    asked.transport.abort()
    return web.Response()


@pytest.mark.parametrize("cloud", CLOUDS)
def test_nothing_is_retried_here(cloud: str) -> None:
    assert isinstance(late := refused(cloud, never, deadline_s=0.5), Retry)
    assert late.kind == "timeout"

    async def main(answer: Answer) -> tuple[str, int]:
        async with Server(answer) as server:
            provider = connect(model(cloud, server.url))
            with pytest.raises(Retry) as caught:
                await provider.send(request(model(cloud, server.url)), 10)
            await provider.close()
            return caught.value.kind, len(server.asked)

    assert asyncio.run(main(cut)) == ("connection", 1)
    assert asyncio.run(main(status(529))) == ("server", 1)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_without_credentials_the_run_stops(monkeypatch: pytest.MonkeyPatch, cloud: str) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    found = refused(cloud, well, token=False)
    assert isinstance(found, Fatal)
    assert (found.code, bool(found.hint)) == (Exit.KEY, True)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_truncation_that_is_called_an_end_is_seen(cloud: str) -> None:
    cut_off = MESSAGE | {"usage": {"input_tokens": 3, "output_tokens": 64}}
    assert asked_of(cloud, status(200, cut_off))[0].truncated
