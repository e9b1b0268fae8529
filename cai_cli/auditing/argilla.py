"""The questions and answers of an audit as Argilla has them on disk: what `rg.Dataset.from_disk` reads and `to_disk` writes.

A folder with .argilla/dataset.json, .argilla/settings.json and records.json. Checked against argilla 2.8.0, whose own classes
read these settings and records and wrote them back as they were. Of what comes back, records.json of `to_disk` or
`records.to_json` is taken, and rows of `records.to_list(flatten=True)`, which tell drafts from what was submitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cai_cli.auditing.labels import KINDS

VERSION = "2.8.0"  # of argilla, that this was checked against
GUIDELINES = (
    "Read the conversation, then both responses. Say which one is the better answer. tie: neither is better; skip: you cannot "
    "or do not want to judge. Say why in a few words. Where you know how your judgement may differ from a model's, name the kind."
)
_ANSWERS = {"1": "Response 1 is better", "2": "Response 2 is better", "tie": "They are equally good", "skip": "I cannot judge"}
_NONE: dict[str, Any] = {"id": None, "inserted_at": None, "updated_at": None, "dataset_id": None}
_FLAT = ".responses"
_SHOWN = ("response_1", "response_2")
SUBMITTED = "submitted"


def dataset(name: str) -> dict[str, Any]:
    """What dataset.json holds."""
    return {"name": name, "status": "draft", "guidelines": GUIDELINES, "allow_extra_metadata": False}


def settings() -> dict[str, Any]:
    """What settings.json holds: three fields to read, three questions to answer. Nothing in it tells what the AI said."""
    return {
        "guidelines": GUIDELINES,
        "questions": [
            _choice("label", "Which response is better?", _ANSWERS, required=True),
            {**_NONE, "name": "reason", "title": "Why?", "description": None, "required": False, "type": "text",
             "settings": {"type": "text", "use_markdown": False}},
            _choice("kind", "If it differs from a model's judgement: how?", {kind: kind.replace("_", " ") for kind in KINDS},
                    required=False),
        ],
        "fields": [
            _field("conversation", "Conversation", "chat"), _field("response_1", "Response 1", "text"),
            _field("response_2", "Response 2", "text"),
        ],
        "vectors": [], "metadata": [], "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": 1}, "mapping": None,
    }  # fmt: skip


def _choice(name: str, title: str, options: Mapping[str, str], *, required: bool) -> dict[str, Any]:
    listed = [{"text": text, "value": value} for value, text in options.items()]
    return {**_NONE, "name": name, "title": title, "description": None, "required": required, "type": "label_selection",
            "settings": {"type": "label_selection", "options": listed, "visible_options": len(listed)}}  # fmt: skip


def _field(name: str, title: str, kind: str) -> dict[str, Any]:
    return {**_NONE, "name": name, "title": title, "required": True, "description": None, "type": kind,
            "settings": {"type": kind, "use_markdown": False}}  # fmt: skip


def record(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row to fill in (`drawing.form`) as an entry of records.json."""
    fields = {name: row[name] for name in ("conversation", "response_1", "response_2")}
    return {"id": row["id"], "fields": fields, "metadata": {}, "suggestions": {}, "responses": {}, "vectors": {},
            "status": "pending", "_server_id": None}  # fmt: skip


def is_record(row: Mapping[str, Any]) -> bool:
    """Whether a row is Argilla's and not ours."""
    return isinstance(row.get("responses"), dict) or any(name.endswith(_FLAT) for name in row)


def answered(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A record as rows like ours, one a person who answered, or one without a label where nobody did.

    Drafts and discarded answers are left out where they are told. What was shown goes with an answer, to be checked.
    """
    fields = row.get("fields")
    texts = fields if isinstance(fields, dict) else row
    one = {"id": row.get("id"), **{name: texts.get(name) for name in _SHOWN}}
    found: dict[str, dict[str, Any]] = {}
    for question in ("label", "reason", "kind"):
        for user, value in _values(row, question):
            found.setdefault(user, {})[question] = value
    if not any(values.get("label") is not None for values in found.values()):
        yield {**one, "label": ""}
    for user, values in found.items():
        if values.get("label") is not None:
            yield {**one, "annotator": user, "label": values["label"], "reason": values.get("reason") or "",
                   "kind": values.get("kind") or ""}  # fmt: skip


def _values(row: Mapping[str, Any], question: str) -> Iterator[tuple[str, Any]]:
    nested = row.get("responses")
    if isinstance(nested, dict):
        for one in nested.get(question) or ():
            if isinstance(one, dict) and (one.get("status") or SUBMITTED) == SUBMITTED:
                yield str(one.get("user_id") or ""), one.get("value")
        return
    given, users, states = (row.get(f"{question}{_FLAT}{part}") or [] for part in ("", ".users", ".status"))
    for at, value in enumerate(given):
        if at >= len(states) or (states[at] or SUBMITTED) == SUBMITTED:
            yield str(users[at]) if at < len(users) else "", value
