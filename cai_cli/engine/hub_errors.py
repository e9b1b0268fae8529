"""What goes wrong with the Hub, as our own errors: by type and status, and what to type next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cai_cli.errors import CaiError, Exit, Fatal, Fix

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

AGAIN = "run the same command again: what is there already is not sent twice"
NETWORK = f"check the network and HF_ENDPOINT, then {AGAIN}"
TOKENS = "https://huggingface.co/settings/tokens"


@contextmanager
def as_ours(repo: str) -> Iterator[None]:
    """Turn errors of `huggingface_hub` into Fix or Fatal; what the user must change is a Fix. Takes: the repository's name"""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except CaiError:
        raise
    except HFValidationError as error:
        raise Fix(f"'{repo}' is no name of a repository", "give OWNER/NAME: letters, digits, - _ and .") from error
    except OfflineModeIsEnabled as error:
        raise Fatal("the Hub is switched off by HF_HUB_OFFLINE", "unset it, then run the same command again",
                    Exit.UNREACHABLE) from error  # fmt: skip
    except HfHubHTTPError as error:
        raise _by_status(error, repo) from error
    except (httpx2.TransportError, ConnectionError) as error:
        raise Fatal(f"the Hub cannot be reached: {type(error).__name__}", NETWORK, Exit.UNREACHABLE) from error
    except json.JSONDecodeError as error:  # of a proxy, or of a page that wants a login
        raise Fatal("what answers is not the Hub: its reply cannot be read", NETWORK, Exit.UNREACHABLE) from error


@contextmanager
def committing() -> Iterator[None]:
    """Turn what a commit raises besides into Fix or Fatal: it has no types for it."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (HFValidationError, json.JSONDecodeError):
        raise
    except ValueError as error:  # the Hub does not take the card's metadata
        hint = "mend the YAML at the top of the card, or give another --license"
        raise Fix(f"the Hub refuses the push{_first(str(error))}", hint) from error
    except RuntimeError as error:  # of the uploader of large files
        raise Fatal(f"the upload broke off: {type(error).__name__}", NETWORK, Exit.UNREACHABLE) from error


def _by_status(error: HfHubHTTPError, repo: str) -> CaiError:
    status, said = error.response.status_code, _first(error.server_message or "")
    if status == 401:
        return Fix("the Hub refuses the token", f"make a new one at {TOKENS}, then `hf auth login` or HF_TOKEN", Exit.KEY)
    if status == 403:
        hint = f"give the token the right to write to it at {TOKENS}, or name a repository of your own"
        return Fix(f"the token may not write to {repo}{said}", hint, Exit.KEY)
    if status == 404:
        return Fix(f"{repo} is not there, or the token may not see it", "check the name's owner, and the token's rights")
    if status == 409:
        return Fix(f"the name {repo} is taken{said}", "name another repository")
    if status == 412:
        return Fatal(f"somebody else pushed to {repo} meanwhile", AGAIN)
    if status == 429:
        wait = error.response.headers.get("retry-after", "")
        after = f" in {wait} s" if wait.isdigit() else " in some minutes"
        return Fatal("the Hub has had too many requests", f"run the same command again{after}")
    if status >= 500:
        return Fatal(f"the Hub fails: status {status}{said}", NETWORK, Exit.UNREACHABLE)
    return Fix(f"the Hub refuses the push: status {status}{said}", "what it says is all that is known; check name and card")


def _first(text: str) -> str:
    """The server's own words, one line of them."""
    line = " ".join(text.split())[:300]
    return f": {line}" if line else ""
