"""Exports on the Hugging Face Hub: the newest version of each in one commit, private unless told otherwise.

`huggingface_hub` knows the token and the address (HF_TOKEN, HF_ENDPOINT); neither is kept or printed here. What was uploaded
before a failure is not uploaded again: the Hub knows files by their content.
"""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cai_cli.engine import card, hub_files, versions
from cai_cli.engine.card import Card, Shown
from cai_cli.engine.export_checks import format_of
from cai_cli.engine.hub_errors import as_ours, committing
from cai_cli.engine.hub_files import Content
from cai_cli.engine.versions import Version
from cai_cli.errors import Exit, Fix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import HfApi

CARD = "README.md"
_NAME = re.compile(r"[\w-]+")
NO_TOKEN = "run `hf auth login`, or set HF_TOKEN; make a token that may write at https://huggingface.co/settings/tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A repository as it was found. `private` None: there is none yet."""

    repo: str  # with its owner
    url: str
    private: bool | None
    head: str | None = None  # the commit that a push goes on top of
    files: Mapping[str, str] = field(default_factory=dict)  # path -> git's or LFS's hash of what is there
    card: Card = field(default_factory=Card)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push came to."""

    url: str
    private: bool
    written: tuple[str, ...]  # paths in the repository that are new or changed
    deleted: tuple[str, ...]

    @property
    def unchanged(self) -> bool:
        return not self.written and not self.deleted


def find(repo: str, *, public: bool) -> Target:
    """Look at a repository; nothing is written.

    Takes: `repo`: OWNER/NAME, or NAME for one's own; `public`: whether it is to be public
    Raises: Fix: no such name, a visibility that is not the one asked for; with exit 77: no token, one that is refused; with exit
    69: the Hub cannot be reached
    """
    with _hub(repo) as hub:
        whole = repo if "/" in repo else f"{_owner(hub)}/{repo}"
        if (found := _looked_up(hub, whole)) is None:
            if whole == repo:
                _owner(hub)  # for a token that is refused, too, the Hub may say that there is no such repository
            return Target(repo=whole, url=f"{hub.endpoint}/datasets/{whole}", private=None)
        private, head = found
        _refuse_visibility(hub, whole, private, public)
        files = hub_files.listed(hub, whole) if head else {}
        old = _read(hub, whole, CARD) if CARD in files else b""
        url = f"{hub.endpoint}/datasets/{whole}"
        there = card.parsed(old.decode("utf-8", "replace"), f"{url}/{CARD}")
        return Target(repo=whole, url=url, private=private, head=head, files=files, card=there)


def push(target: Target, folder: Path, title: str, exported: Sequence[tuple[str, Version]], *, public: bool) -> Pushed:
    """Make the repository what the exports are, in one commit; make it first where there is none.

    Takes: `folder`: the exports' own, whose card is the repository's (see `hub_card.write`); `exported`: names and versions
    Gives: what was written; nothing, where all of it was there already
    Raises: what `find` raises; Fix (exit 65): a published file was changed
    """
    own = card.read_card(folder / CARD)
    contents = hub_files.contents(exported)
    with tempfile.TemporaryDirectory(prefix="cai-push-") as place, _hub(target.repo) as hub:
        shown = {name: Shown(version=one, features=own.declared(name), folder=f"{name}/") for name, one in exported}
        shown = {**_others(hub, target, shown, Path(place)), **shown}
        _refuse_formats(target, shown)
        contents[CARD] = Content.of(card.written(own, title, shown, target.repo, signed=True))
        written, deleted = hub_files.changes(contents, target.files, [name for name, _ in exported])
        if written or deleted:
            new = {path: contents[path] for path in written}
            _commit(hub, target, new, deleted, public, f"cai: {', '.join(name for name, _ in exported)}")
        private = not public if target.private is None else target.private
        return Pushed(url=target.url, private=private, written=written, deleted=deleted)


@contextmanager
def _hub(repo: str) -> Iterator[HfApi]:
    """The Hub's client, quiet, its errors turned into ours. Raises: Fix (exit 77): there is no token"""
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it says of every retry what we say once, at the end
    if huggingface_hub.get_token() is None:
        raise Fix("there is no token for the Hugging Face Hub", NO_TOKEN, Exit.KEY)
    with as_ours(repo), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Hub about the card's metadata: what it refuses is an error
        yield huggingface_hub.HfApi(library_name="cai")


def _owner(hub: HfApi) -> str:
    return str(hub.whoami()["name"])


def _looked_up(hub: HfApi, repo: str) -> tuple[bool, str | None] | None:
    """Whether a repository is private, and its newest commit; None: there is none, or none that the token may see."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = hub.repo_info(repo, repo_type="dataset")
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None
    return info.private is True, info.sha


def _refuse_visibility(hub: HfApi, repo: str, private: bool, public: bool) -> None:
    """What an existing repository is, it stays."""
    if not private and not public:
        hint = "add --public if everybody may read it, or name another repository"
        raise Fix(f"{repo} is public: what is pushed there, everybody can read", hint)
    if private and public:
        hint = f"make it public at {hub.endpoint}/datasets/{repo}/settings, or leave --public out"
        raise Fix(f"{repo} is private, and --public does not change what is there", hint)


def _read(hub: HfApi, repo: str, path: str) -> bytes:
    """A small file of a repository."""
    with tempfile.TemporaryDirectory(prefix="cai-push-") as place:
        return Path(hub.hf_hub_download(repo, path, repo_type="dataset", local_dir=place)).read_bytes()


def _others(hub: HfApi, target: Target, pushed: Mapping[str, Any], place: Path) -> dict[str, Shown]:
    """The exports that were pushed before and stay: the card declares them still. Their manifests say what they are."""
    found = {}
    for one in target.card.front.get("configs") or []:
        name = str(one.get("config_name", "")) if isinstance(one, dict) else ""
        if name in pushed or not _NAME.fullmatch(name) or f"{name}/{versions.MANIFEST}" not in target.files:
            continue
        version = _fetched(hub, target, name, place / name)
        found[name] = Shown(version=version, features=target.card.declared(name), folder=f"{name}/")
    return found


def _refuse_formats(target: Target, shown: Mapping[str, Shown]) -> None:
    """`datasets` takes one reader for all of a repository. Raises: Fix: JSONL beside Parquet"""
    found: dict[str, list[str]] = {}
    for name, one in shown.items():
        if stored := format_of(one.version):
            found.setdefault(stored, []).append(name)
    if len(found) > 1:
        both = " and ".join(f"{', '.join(names)} as {stored}" for stored, names in found.items())
        all_of_them = " ".join(f"--to {name}" for name in shown)
        what = f"{target.repo} would hold {both}, and `datasets` reads one format in a repository"
        raise Fix(what, f"push all of them in one: {all_of_them} --format parquet; or name another repository")


def _fetched(hub: HfApi, target: Target, name: str, place: Path) -> Version:
    """A version that was pushed before, as far as a card needs it, in a folder of its name."""
    place.mkdir()
    for file in (versions.MANIFEST, hub_files.BIAS):
        if f"{name}/{file}" in target.files:
            (place / file).write_bytes(_read(hub, target.repo, f"{name}/{file}"))
    version = str(versions.read(place).manifest.get("version", ""))
    return versions.read(place.rename(place.with_name(version)) if versions.number_of(version) else place)


def _commit(hub: HfApi, target: Target, written: Mapping[str, Content], deleted: Sequence[str], public: bool, said: str) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if target.private is None:
        hub.create_repo(target.repo, repo_type="dataset", private=not public)
    adds = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content.given) for path, content in written.items()]
    gone = [CommitOperationDelete(path_in_repo=path) for path in deleted]
    with committing():
        hub.create_commit(target.repo, [*adds, *gone], commit_message=said, repo_type="dataset", parent_commit=target.head)
