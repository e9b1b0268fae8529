"""Every page of the documentation, followed literally: its commands are run, its files are written, its links lead somewhere.

A page is one shell session in a folder of its own, which looks like a checkout. What a block is, its first line says:
    ```sh               run, and it must succeed     ```python          run, by the same Python
    ```sh elsewhere     needs another machine, another package's program, or is run by .ci/run; it is not run here
    `name` and a block below it: a file of that name is written
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import Server
from outside import PYTHONPATH, ROOT, checkout
from reached import DOCS

sys.path.insert(0, str(DOCS))

import messages
import reference

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(
    r"^(?:`(?P<file>[\w./-]+)`:?\n\n)?(?P<margin> *)```(?P<kind>\w+)(?P<note>[^\n]*)\n(?P<text>.*?)^(?P=margin)```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(#[^)]*)?\)")
ELSEWHERE = " elsewhere"
OWN_TEST = {"extending.md"}  # tests/test_extending.py installs the packages of this page
WHOLE_S = 300


def session(text: str) -> Iterator[str]:
    """A page as a shell script, block by block."""
    for block in BLOCK.finditer(text):
        if block["note"] == ELSEWHERE:
            continue
        if block["file"]:
            yield f"mkdir -p \"$(dirname '{block['file']}')\"\n"
            yield f"cat > '{block['file']}' <<'END_OF_FILE'\n{block['text']}END_OF_FILE\n"
        elif block["kind"] == "sh":
            yield textwrap.dedent(block["text"])
        elif block["kind"] == "python":
            yield f"python - <<'END_OF_CODE'\n{block['text']}END_OF_CODE\n"


def follow(page: Path, folder: Path, url: str) -> tuple[int, str]:
    """Run a page. Gives: the exit code of its session, and all that it said"""
    checkout(folder)
    home = folder / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "OPENAI_", "XDG_", "HF_"))}
    env = kept | {
        "PATH": f"{folder}/.venv/bin:{os.environ['PATH']}", "PYTHONPATH": PYTHONPATH, "HOME": str(home), "HF_HUB_OFFLINE": "1",
        "ANTHROPIC_BASE_URL": url, "NO_COLOR": "1",
    }  # fmt: skip
    script = "set -euo pipefail\n" + "\n".join(session(page.read_text("utf-8")))
    process = subprocess.Popen(
        ["bash", "-c", script], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=WHOLE_S)
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    return process.returncode, said.decode()


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OWN_TEST], ids=lambda page: page.stem)
def test_a_page_can_be_followed(page: Path, tmp_path: Path, running: Server) -> None:
    code, said = follow(page, tmp_path, running.url)
    assert code == 0, said[-3000:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    missing = [link for link, _ in LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_reference_is_what_the_code_says(name: str) -> None:
    written = (reference.FOLDER / name).read_text("utf-8")
    assert written == "".join(reference.PAGES[name]()), "write it anew: python docs/reference.py"


def test_the_page_of_messages_is_what_is_said(tmp_path: Path) -> None:
    made = "".join(messages.page())
    (tmp_path / "messages.md").write_text(made)  # to be looked at
    assert made == messages.PAGE.read_text("utf-8"), "write it anew: python docs/messages.py"


def test_every_mistake_is_answered_with_what_to_type_next() -> None:
    told = re.findall(r"```console\n(.*?)```", messages.PAGE.read_text("utf-8"), re.DOTALL)
    assert len(told) >= 40
    assert [one for one in told if "(exit" in one and "hint: " not in one and "with: " not in one] == []
