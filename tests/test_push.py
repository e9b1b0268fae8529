"""`cai export --push`, against a stand-in of the Hub's API: what is uploaded, what is refused, and what is said of it."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hub import TOKEN, Hub, Repo, serve
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from outside import Done, cai, environment, files_that_hold, questions, rows_of, write_config, write_rows

from cai_cli.cli import _push
from cai_cli.engine import hub_card, hub_files, versions
from cai_cli.engine.card import Card, parsed, read_card, written
from cai_cli.engine.hub_errors import as_ours, committing
from cai_cli.errors import CaiError, Exit, Fix

ROWS = {"prompts": {"path": "prompts.jsonl", "kind": "harmful"}, "shards": {"rows": 6}, "debias": {"min_confidence": 0.5}}
REPO = "tester/garden"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose config was run: 24 prompts in 4 shards, with rejects."""
    folder = tmp_path_factory.mktemp("whole")
    write_rows(folder / "prompts.jsonl", [*questions(24), {"prompt": ""}])
    config = write_config(folder, **ROWS)
    assert cai(folder, "run", config).code == 0
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(whole, tmp_path / "whole", symlinks=True)
    return tmp_path / "whole"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    place = tmp_path / "hub"
    place.mkdir()
    with serve(place) as one:
        yield one


def variables(hub: Hub, folder: Path, **more: str | None) -> dict[str, str | None]:
    return {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(folder / "hf"), **more,
    }  # fmt: skip


def push(hub: Hub, folder: Path, *options: str, to: str = "preference", repo: str = REPO, **env: str | None) -> Done:
    hub.asked.clear()
    return cai(folder, "export", "c.yaml", "--to", to, "--push", repo, *options, env=variables(hub, folder, **env))


def loaded(repo: Repo, name: str, cache: Path) -> list[dict[str, Any]]:
    """The rows as `datasets` reads them in a clone of the repository."""
    import datasets

    return list(datasets.load_dataset(str(repo.folder), name, split="train", cache_dir=str(cache)))


# What is uploaded


def test_a_push_is_private_one_commit_and_loads_as_it_is(hub: Hub, folder: Path, tmp_path: Path) -> None:
    done = push(hub, folder, "--license", "CC-BY-4.0")
    assert done.code == 0, done.err
    assert done.last == f"cai: pushed 7 files: {hub.url}/datasets/{REPO} (private)"
    repo = hub.repos[REPO]
    assert repo.private
    assert len(repo.commits) == 1
    shards = [f"preference/train-{n:05d}-of-00004.jsonl" for n in range(4)]
    assert repo.paths() == ["README.md", "preference/_bias.json", "preference/_manifest.json", *shards]
    assert loaded(repo, "preference", tmp_path) == rows_of(folder / "out/export/preference/latest")
    card = parsed((repo.folder / "README.md").read_text("utf-8"), "")
    assert (card.licence, read_card(folder / "out/export/README.md").licence) == ("cc-by-4.0", "cc-by-4.0")
    assert f'load_dataset("{REPO}", "preference"' in (repo.folder / "README.md").read_text("utf-8")
    assert TOKEN not in done.out + done.err
    assert files_that_hold(TOKEN, folder) == []


def test_the_same_again_is_nothing_new_and_another_export_stands_beside_it(hub: Hub, folder: Path, tmp_path: Path) -> None:
    assert push(hub, folder, "--license", "mit", repo="garden").code == 0  # the owner is who the token is of
    again = push(hub, folder)
    assert (again.code, again.last) == (
        0,
        f"cai: nothing new on the Hub: {hub.url}/datasets/{REPO} (private) is what was exported",
    )
    assert hub.count("POST|PUT") == 0
    assert push(hub, folder, to="sft").code == 0
    assert [commit["summary"] for commit in hub.repos[REPO].commits] == ["cai: preference", "cai: sft"]
    for name in ("preference", "sft"):
        assert loaded(hub.repos[REPO], name, tmp_path) == rows_of(folder / f"out/export/{name}/latest")
    card = (hub.repos[REPO].folder / "README.md").read_text("utf-8")
    for name in ("preference", "sft"):
        assert f"| `{name}` | `{(folder / f'out/export/{name}/latest').readlink()}` |" in card
    assert push(hub, folder, to="sft").last.startswith("cai: nothing new on the Hub")


def test_it_loads_by_its_name_from_the_hub(hub: Hub, folder: Path, tmp_path: Path) -> None:
    assert push(hub, folder, "--license", "mit").code == 0
    code = f"import datasets, json; print(json.dumps(list(datasets.load_dataset('{REPO}', 'preference', split='train'))))"
    env = environment(folder, **variables(hub, folder))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == rows_of(folder / "out/export/preference/latest")


def test_files_of_an_older_version_go_and_what_somebody_added_stays(hub: Hub, folder: Path, tmp_path: Path) -> None:
    assert push(hub, folder, "--license", "mit").code == 0
    repo = hub.repos[REPO]
    repo.write("preference/notes.md", b"by hand")
    repo.write("figure.png", b"\x89PNG")
    write_rows(folder / "prompts.jsonl", questions(7))  # two shards
    assert cai(folder, "run", "c.yaml").code == 0
    done = push(hub, folder)
    assert "4 old ones deleted" in done.last
    assert {"preference/notes.md", "figure.png", "preference/train-00001-of-00002.jsonl"} <= {*repo.paths()}
    assert not any("of-00004" in path for path in repo.paths())
    assert loaded(repo, "preference", tmp_path) == rows_of(folder / "out/export/preference/latest")


def test_a_push_that_broke_off_goes_on_where_it_was(hub: Hub, folder: Path) -> None:
    hub.fail["/commit/"] = 500
    done = push(hub, folder, "--license", "mit")
    assert done.code == Exit.UNREACHABLE
    assert "the Hub fails: status 500" in done.err
    assert "run the same command again" in done.last
    assert hub.count("PUT /lfs") > 0
    hub.fail.clear()
    assert push(hub, folder).code == 0
    assert hub.count("PUT /lfs") == 0
    assert hub.count("POST /api/repos/create") == 0


# What is refused, before anything is written


def test_visibility_is_read_first_and_never_changed(hub: Hub, folder: Path) -> None:
    hub.add("tester/seen", private=False)
    hub.add("tester/hidden", private=True)
    done = push(hub, folder, "--license", "mit", repo="tester/seen")
    assert (done.code, hub.count("POST|PUT")) == (2, 0)
    assert "tester/seen is public: what is pushed there, everybody can read" in done.err
    assert "--public" in done.last
    done = push(hub, folder, "--license", "mit", "--public", repo="tester/hidden")
    assert (done.code, hub.count("POST|PUT")) == (2, 0)
    assert "--public does not change what is there" in done.err
    assert push(hub, folder, "--license", "mit", "--public", repo="tester/seen").last.endswith("(public)")
    assert push(hub, folder, "--public", repo="tester/new").last.endswith("(public)")
    assert [hub.repos[f"tester/{name}"].private for name in ("seen", "hidden", "new")] == [False, True, False]


def test_without_a_licence_nothing_is_made(hub: Hub, folder: Path) -> None:
    done = push(hub, folder)
    assert (done.code, hub.repos) == (2, {})
    assert f"{REPO} has no licence yet" in done.err
    assert "--license ID" in done.last
    done = push(hub, folder, "--license", "no such one")
    assert (done.code, hub.asked) == (2, [])
    assert "'no such one' is no id of a licence" in done.err
    done = push(hub, folder, "--license", "no-such")  # what an id must look like, the Hub alone knows
    assert done.code == 2
    assert '"license" must be one of the known ones' in done.err


def test_on_a_terminal_a_licence_is_asked_for(hub: Hub, folder: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cai_cli", "export", "c.yaml", "--to", "sft", "--push", REPO]
    env = environment(folder, **variables(hub, folder))
    with subprocess.Popen(command, cwd=folder, env=env, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, b"apache-2.0\n")
        assert process.wait(60) == 0
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "licence of the dataset" in shown
    assert parsed((hub.repos[REPO].folder / "README.md").read_text("utf-8"), "").licence == "apache-2.0"


@pytest.mark.parametrize(
    ("env", "code", "said", "hint"),
    [
        ({"HF_TOKEN": None}, Exit.KEY, "there is no token", "hf auth login"),
        ({"HF_TOKEN": "hf_another"}, Exit.KEY, "refuses the token", "HF_TOKEN"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, Exit.UNREACHABLE, "cannot be reached", "HF_ENDPOINT"),
        ({"HF_HUB_OFFLINE": "1"}, Exit.UNREACHABLE, "HF_HUB_OFFLINE", "unset it"),
    ],
)
def test_no_token_a_wrong_one_and_no_hub_have_a_code_and_a_next_command(
    hub: Hub, folder: Path, env: dict[str, str | None], code: int, said: str, hint: str
) -> None:
    done = push(hub, folder, "--license", "mit", **env)
    assert (done.code, hub.repos) == (code, {})
    assert said in done.err
    assert hint in done.last
    assert "hf_another" not in done.err


def refusal(status: int, **headers: str) -> HfHubHTTPError:
    request = httpx2.Request("POST", "http://127.0.0.1/api")
    return HfHubHTTPError("", response=httpx2.Response(status, headers=headers, request=request), server_message="in\nshort")


@pytest.mark.parametrize(
    ("error", "code", "said", "hint"),
    [
        (refusal(400), Exit.USAGE, "refuses the push: status 400: in short", "name and card"),
        (refusal(401), Exit.KEY, "refuses the token", "hf auth login"),
        (refusal(403), Exit.KEY, f"may not write to {REPO}: in short", "a repository of your own"),
        (refusal(404), Exit.USAGE, "is not there, or the token may not see it", "owner"),
        (refusal(409), Exit.USAGE, f"the name {REPO} is taken", "another repository"),
        (refusal(412), Exit.STOPPED, "somebody else pushed", "run the same command again"),
        (refusal(429, **{"retry-after": "17"}), Exit.STOPPED, "too many requests", "again in 17 s"),
        (refusal(429, **{"retry-after": "soon"}), Exit.STOPPED, "too many requests", "again in some minutes"),
        (refusal(503), Exit.UNREACHABLE, "the Hub fails: status 503", "HF_ENDPOINT"),
        (httpx2.ConnectError("no route"), Exit.UNREACHABLE, "cannot be reached: ConnectError", "network"),
        (OfflineModeIsEnabled("off"), Exit.UNREACHABLE, "HF_HUB_OFFLINE", "unset it"),
        (HFValidationError("bad"), Exit.USAGE, f"'{REPO}' is no name of a repository", "OWNER/NAME"),
        (json.JSONDecodeError("no", "<html>", 0), Exit.UNREACHABLE, "what answers is not the Hub", "HF_ENDPOINT"),
        (ValueError("Invalid metadata\n- no"), Exit.USAGE, "refuses the push: Invalid metadata - no", "--license"),
        (RuntimeError("cas"), Exit.UNREACHABLE, "the upload broke off: RuntimeError", "not sent twice"),
    ],
)
def test_what_the_hub_and_its_client_say_becomes_ours(error: Exception, code: Exit, said: str, hint: str) -> None:
    with pytest.raises(CaiError) as caught, as_ours(REPO), committing():
        raise error
    assert caught.value.code is code
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_a_fix_of_our_own_passes_as_it_is() -> None:
    with pytest.raises(Fix, match=r"^ours$"), as_ours(REPO):
        raise Fix("ours", "hint")


def test_a_file_that_was_changed_or_is_gone_is_not_pushed(folder: Path) -> None:
    assert cai(folder, "export", "c.yaml", "--to", "sft").code == 0
    version = versions.latest(folder / "out/export", "sft")
    assert version is not None
    first = version.files()[0]
    first.write_bytes(first.read_bytes().replace(b"mend", b"bend", 1))
    with pytest.raises(Fix, match=r"is not what was published: its sha256") as caught:
        hub_files.contents([("sft", version)])
    assert caught.value.code is Exit.INPUT
    first.unlink()
    with pytest.raises(Fix, match=r"is not what was published: it is gone"):
        hub_files.contents([("sft", version)])


def test_a_repository_holds_one_format(hub: Hub, folder: Path) -> None:
    assert push(hub, folder, "--license", "mit").code == 0
    done = push(hub, folder, "--license", "mit", "--format", "parquet", "--out", "packed", to="sft")
    assert done.code == 2
    assert f"error: {REPO} would hold preference as jsonl and sft as parquet" in done.err
    assert len(hub.repos[REPO].commits) == 1
    advised = re.search(r"push all of them in one: (--to .*);", done.err)
    assert advised
    again = cai(folder, "export", "c.yaml", *advised[1].split(), "--out", "packed", "--push", REPO, env=variables(hub, folder))
    assert again.code == 0, again.err


# A card that people write in, here and there


def as_pushed(before: str = "", after: str = "\n", **front: Any) -> Card:
    """A card as the Hub has it after a push of these texts."""
    return parsed(written(Card(front=front, before=before, after=after), "garden", {}, REPO, signed=True).decode(), "")


def merged(own: Card, there: Card) -> Card:
    return hub_card.merged(own, there, "garden", Path("out/export/README.md"), "URL")


MINE, THEIRS = "\n# Mine\n\n", "\n# Theirs\n\n"


def test_what_was_written_here_since_the_last_push_wins_over_what_was_pushed() -> None:
    there = as_pushed(before=THEIRS, license="mit", tags=["a"])
    assert not there.edited
    card = merged(Card(front={"license": "apache-2.0"}, before=MINE), there)
    assert (card.before, card.front["license"], card.front["tags"]) == (MINE, "apache-2.0", ["a"])


def test_what_was_written_on_the_hub_since_the_last_push_stays() -> None:
    there = parsed(
        as_text(as_pushed(license="mit")).replace("# garden", "# Edited").replace("license: mit", "license: cc0-1.0"), ""
    )
    assert there.edited
    card = merged(Card(front={"license": "mit"}), there)
    assert ("# Edited" in card.before, card.front["license"]) == (True, "cc0-1.0")
    assert merged(Card(), as_pushed(before=THEIRS)).before == THEIRS, "a folder made anew does not undo what was written"
    only_yaml = parsed("---\nlicense: mit\n---\n", "")  # as the Hub's page for a new dataset makes it
    assert merged(Card(before=MINE), only_yaml).front["license"] == "mit"
    assert merged(Card(before=MINE), only_yaml).before == MINE


def as_text(card: Card) -> str:
    """The card in one piece, its signature as it was."""
    pushed = written(card, "garden", {}, REPO, signed=True).decode()
    assert card.signature in pushed
    return pushed


def test_a_card_that_was_edited_in_both_places_is_nobodys_to_choose() -> None:
    there = parsed(as_text(as_pushed()).replace("# garden", "# Edited"), "")
    with pytest.raises(Fix, match=r"the card at URL was edited, and so was out/export/README\.md") as caught:
        merged(Card(before=MINE), there)
    assert "push again" in caught.value.hint


def test_edits_on_the_hub_survive_a_push(hub: Hub, folder: Path) -> None:
    assert push(hub, folder, "--license", "mit").code == 0
    card = hub.repos[REPO].folder / "README.md"
    card.write_text(card.read_text("utf-8") + "\nWritten on the Hub.\n", encoding="utf-8")
    assert push(hub, folder, to="sft").code == 0
    assert card.read_text("utf-8").endswith("Written on the Hub.\n")
    assert "sft/train-*" in card.read_text("utf-8")
    assert push(hub, folder, to="sft").last.startswith("cai: nothing new on the Hub")
    assert card.read_text("utf-8").endswith("Written on the Hub.\n")


def test_a_hub_that_lies_about_names_writes_nothing_outside(hub: Hub, folder: Path) -> None:
    """Its card may declare anything: a name is part of a path here only if it is a plain one."""
    repo = hub.add(REPO, private=True)
    configs = [{"config_name": name, "data_files": "x"} for name in ("../../escaped", "sft", 7)]
    repo.write("README.md", f"---\nlicense: mit\nconfigs: {json.dumps(configs)}\n---\n".encode())
    manifest = {
        "schema": 1,
        "version": "../../../escaped",
        "fingerprint": "0",
        "rows": 0,
        "files": [],
        "rejected": {},
        "filtered": {},
    }
    repo.write("sft/_manifest.json", json.dumps(manifest).encode())
    done = push(hub, folder)
    assert done.code == 0, done.err
    assert "escaped" not in str([*folder.rglob("*"), *(folder / "tmp").parent.rglob("*")])


def test_a_licence_of_a_flag_is_lower_case_as_the_hub_has_it() -> None:
    assert _push._checked(" Apache-2.0 ") == "apache-2.0"
