"""A stand-in of the Hugging Face Hub's API on 127.0.0.1, as far as a push and `datasets.load_dataset` use it.

with serve(tmp_path) as hub: ...    hub.url, hub.repos, hub.asked, hub.fail
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stand_in_token"
OWNER = "tester"
LFS_FROM = 2_000  # bytes from which a file goes the way of large ones; the Hub's own limit is 10 MB


@dataclass
class Repo:
    """A dataset's repository: its files lie in `folder`."""

    folder: Path
    private: bool
    commits: list[dict[str, Any]] = field(default_factory=list)  # summary, written, deleted
    lfs: set[str] = field(default_factory=set)  # paths

    @property
    def sha(self) -> str:
        return hashlib.sha1(f"{self.folder}{len(self.commits)}".encode()).hexdigest()

    def paths(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def write(self, path: str, data: bytes) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


@dataclass
class Hub:
    """What the stand-in holds, and what it was asked."""

    folder: Path
    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # large files by sha256
    asked: list[str] = field(default_factory=list)  # "METHOD /path"
    fail: dict[str, int] = field(default_factory=dict)  # a pattern of "METHOD /path" -> the status to give

    def add(self, name: str, *, private: bool) -> Repo:
        place = self.folder / name
        place.mkdir(parents=True)
        self.repos[name] = Repo(place, private)
        return self.repos[name]

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, one)) for one in self.asked)


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def _route(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        asked = f"{self.command} {path}"
        self.hub.asked.append(asked)
        if status := next((status for pattern, status in self.hub.fail.items() if re.search(pattern, asked)), None):
            return self._answer(status, {"error": "as the test wants it"}, {"Retry-After": "0"})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and not path.startswith("/lfs/"):
            said = {"X-Error-Message": "Invalid credentials in Authorization header"}
            return self._answer(401, {"error": "Invalid credentials"}, said)
        for pattern, method in _ROUTES:
            if match := re.fullmatch(pattern, asked):
                method(self, body, *match.groups())
                return None
        self._answer(404, {"error": f"the stand-in has no {asked}"})
        return None

    do_GET = do_HEAD = do_POST = do_PUT = _route  # noqa: N815

    def _answer(self, status: int, document: Any = None, headers: dict[str, str] | None = None, data: bytes = b"") -> None:
        data = data or json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _repo(self, name: str) -> Repo | None:
        if name not in self.hub.repos:
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return self.hub.repos.get(name)

    def whoami(self, _: bytes) -> None:
        self._answer(200, {"type": "user", "name": OWNER, "auth": {"accessToken": {"role": "write"}}})

    def info(self, _: bytes, name: str) -> None:
        if repo := self._repo(name):
            self._answer(200, {"id": name, "sha": repo.sha, "private": repo.private, "tags": [], "siblings": []})

    def tree(self, _: bytes, name: str, folder: str | None) -> None:
        if not (repo := self._repo(name)):
            return
        inside = [path for path in repo.paths() if not folder or path.startswith(f"{folder}/")]
        if "recursive=true" not in self.path.lower():
            depth = len(Path(folder or "").parts) + 1
            inside = sorted({str(Path(*Path(path).parts[:depth])) for path in inside})
        self._answer(200, [self._known(repo, path) for path in inside])

    def _known(self, repo: Repo, path: str) -> dict[str, Any]:
        if (repo.folder / path).is_dir():
            return {"type": "directory", "path": path, "oid": git_hash(path.encode()), "size": 0}
        return self._entry(repo, path)

    def _entry(self, repo: Repo, path: str) -> dict[str, Any]:
        data = (repo.folder / path).read_bytes()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_hash(data)}
        if path in repo.lfs:
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return entry

    def resolve(self, _: bytes, name: str, path: str) -> None:
        if repo := self._repo(name):
            if not (repo.folder / path).is_file():
                self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
                return
            data = (repo.folder / path).read_bytes()
            self._answer(200, headers={"ETag": f'"{git_hash(data)}"', "X-Repo-Commit": repo.sha}, data=data)

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization'] or OWNER}/{asked['name']}"
        if name in self.hub.repos:
            return self._answer(409, {"error": "You already created this dataset repo"})
        assert asked["type"] == "dataset"
        self.hub.add(name, private=asked.get("visibility") == "private")
        return self._answer(200, {"url": f"{self.hub.url}/datasets/{name}"})

    def validate(self, body: bytes) -> None:
        if "license: no-such" in json.loads(body)["content"]:
            return self._answer(400, {"errors": [{"message": '"license" must be one of the known ones'}], "warnings": []})
        return self._answer(200, {"errors": [], "warnings": [{"message": "a warning that nobody needs"}]})

    def preupload(self, body: bytes, name: str) -> None:
        if repo := self._repo(name):
            asked = json.loads(body)["files"]
            large = {file["path"] for file in asked if file["size"] >= LFS_FROM and file["path"] != "README.md"}
            repo.lfs |= large
            modes = {file["path"]: "lfs" if file["path"] in large else "regular" for file in asked}
            files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            self._answer(200, {"files": files})

    def batch(self, body: bytes, _: str) -> None:
        objects = [self._action(one) for one in json.loads(body)["objects"]]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _action(self, one: dict[str, Any]) -> dict[str, Any]:
        if one["oid"] in self.hub.objects:
            return one
        return {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}", "header": {}}}}

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self._answer(200, {})

    def commit(self, body: bytes, name: str) -> None:
        if not (repo := self._repo(name)):
            return
        header, *lines = [json.loads(line) for line in body.splitlines()]
        if header["value"].get("parentCommit", repo.sha) != repo.sha:
            self._answer(412, {"error": "A commit has happened since"})
            return
        for line in lines:
            self._apply(repo, line["key"], line["value"])
        written = [line["value"]["path"] for line in lines if line["key"] != "deletedFile"]
        deleted = [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]
        repo.commits.append({"summary": header["value"]["summary"], "written": written, "deleted": deleted})
        self._answer(200, {"commitUrl": f"{self.hub.url}/datasets/{name}/commit/{repo.sha}", "commitOid": repo.sha})

    def _apply(self, repo: Repo, key: str, value: dict[str, Any]) -> None:
        if key == "file":
            repo.write(value["path"], base64.b64decode(value["content"]))
        elif key == "lfsFile":
            repo.write(value["path"], self.hub.objects[value["oid"]])
        else:
            assert key == "deletedFile"
            (repo.folder / value["path"]).unlink()


_NAME = r"([\w.-]+/[\w.-]+)"
_AT = r"(?:main|[0-9a-f]{40})"
_ROUTES: list[tuple[str, Any]] = [
    (r"GET /api/whoami-v2", _Handler.whoami),
    (rf"GET /api/datasets/{_NAME}(?:/revision/{_AT})?", _Handler.info),
    (rf"GET /api/datasets/{_NAME}/tree/{_AT}(?:/(.+))?", _Handler.tree),
    (rf"(?:GET|HEAD) /datasets/{_NAME}/resolve/{_AT}/(.+)", _Handler.resolve),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"POST /api/datasets/{_NAME}/preupload/main", _Handler.preupload),
    (rf"POST /datasets/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /lfs/([0-9a-f]{64})", _Handler.put),
    (rf"POST /api/datasets/{_NAME}/commit/main", _Handler.commit),
]


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    """A Hub for the time of a test. Takes: where its repositories lie"""
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
