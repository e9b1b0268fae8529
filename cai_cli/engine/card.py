"""Dataset cards: the README.md that tells `datasets` what is where and of which type, and people what it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from cai_cli.engine import card_words
from cai_cli.engine.disk import write_durably
from cai_cli.engine.versions import Version, fingerprint
from cai_cli.errors import Exit, Fix

BEGIN, END = "<!-- cai: begin, written anew by every run -->", "<!-- cai: end, yours from here on -->"
OURS = ("configs", "dataset_info", "size_categories")  # keys of the YAML that every run writes anew
Features = Sequence[Mapping[str, Any]]
_SIGN = "<!-- cai: pushed with {} around this part -->"
_SIGNATURE = re.compile(_SIGN.format("([0-9a-f]{16})"))
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"),
          (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))  # fmt: skip


def version_card(stage: str, files: Sequence[Mapping[str, Any]], features: Features) -> bytes:
    """The card inside a version's folder: declares the features, so that the folder loads by its own path."""
    names = [str(file["name"]) for file in files if file["shard"] is not None]
    front: dict[str, Any] = {}
    if names:  # there are versions without a row: all of them were left out, with their reasons
        front["configs"] = [_config("default", "", files)]
        front["dataset_info"] = [{"config_name": "default", "features": list(features)}]
    return (_front(front) + f"\nOne version of the stage `{stage}`; `_manifest.json` says what it was made of.\n").encode()


def _data_files(folder: str, names: Sequence[str]) -> list[dict[str, str]]:
    ending = names[0][names[0].index(".") :]
    return [{"split": split, "path": f"{folder}{split}-*{ending}"} for split in card_words.splits(names)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card taken apart: its YAML, and what people wrote before and after the marked part."""

    front: Mapping[str, Any] = field(default_factory=dict)
    before: str = ""  # empty: nobody wrote anything, so that a title goes there
    after: str = "\n"
    signature: str = ""  # of a card that was pushed: what stood around the marked part then

    @property
    def around(self) -> str:
        """A hash of what is people's: texts outside the marked part, and keys of the YAML that are not ours."""
        keys = {name: value for name, value in self.front.items() if name not in OURS}
        return fingerprint([keys, self.before, self.after])[:16]

    @property
    def texts(self) -> tuple[str, str]:
        return self.before.strip(), self.after.strip()

    @property
    def edited(self) -> bool:
        """Whether people wrote in a pushed card since it was pushed."""
        return self.signature != self.around and (bool(self.front) or any(self.texts))

    def untouched(self, title: str) -> bool:
        """Whether nothing stands around the marked part but the title that we put there."""
        return self.texts in (("", ""), (f"# {title}", ""))

    @property
    def licence(self) -> str:
        """The licence in the YAML, as one line; empty: none was given."""
        given = self.front.get("license") or ""
        return ", ".join(map(str, given)) if isinstance(given, list) else str(given)

    def declared(self, stage: str) -> Features:
        """The columns that the card declares for a config; none where it declares no such one."""
        listed = self.front.get("dataset_info")
        infos = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        return next((one.get("features") or [] for one in infos if one.get("config_name") == stage), [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A version as a card shows it. `folder`: where its files lie from the card, with a slash at its end."""

    version: Version
    features: Features
    folder: str


def update_card(output: Path, title: str, versions: Mapping[str, Version], features: Mapping[str, Features]) -> None:
    """Write the output folder's card; what people wrote outside the marked part, and other keys of its YAML, survive.

    `versions`: the newest version of each stage; `features`: the columns of each stage.
    Raises: Fix (exit 65): the YAML of the card that is there cannot be read
    """
    shown = {
        stage: Shown(version=version, features=features[stage], folder=f"{stage}/{version.name}/")
        for stage, version in versions.items()
    }
    path = output / "README.md"
    write_durably(path, written(read_card(path), title, shown))


def read_card(path: Path) -> Card:
    """The card at a path, taken apart; an empty one where there is none. Raises: Fix (exit 65): its YAML cannot be read"""
    return parsed(path.read_text("utf-8") if path.exists() else "", str(path))


def parsed(old: str, place: str) -> Card:
    """A card's text, taken apart. Takes: `place`: what to call it in a message. Raises: Fix (exit 65): its YAML is no YAML"""
    match = _FRONT.match(old)
    front = _read_front(match[1], place) if match else {}
    text = old[match.end() :] if match else old
    before, found, rest = text.partition(BEGIN)
    if not found:
        return Card(front=front, before=text)
    marked, _, after = rest.partition(END)
    signature = _SIGNATURE.search(marked)
    return Card(front=front, before=before, after=after, signature=signature[1] if signature else "")


def written(old: Card, title: str, shown: Mapping[str, Shown], place: str = ".", *, signed: bool = False) -> bytes:
    """A card put together.

    Takes: `place`: what `load_dataset` is given, a folder or a repository; `signed`: with a hash of what is people's, by which
    later edits are seen
    """
    loadable = {stage: one for stage, one in shown.items() if one.version.files()}
    front = {name: value for name, value in old.front.items() if name not in OURS}
    front.setdefault("pretty_name", title)
    new = replace(old, front=front, before=old.before or f"\n# {title}\n\n")
    signature = f"{_SIGN.format(new.around)}\n" if signed else ""
    front = dict(front)
    front["size_categories"] = [_size(sum(int(one.version.manifest["rows"]) for one in shown.values()))]
    front["configs"] = [_config(stage, one.folder, one.version.manifest["files"]) for stage, one in loadable.items()]
    front["dataset_info"] = [{"config_name": stage, "features": list(one.features)} for stage, one in loadable.items()]
    told = card_words.told({stage: (one.version, one.features) for stage, one in shown.items()}, old.licence, place)
    return f"{_front(front)}{new.before}{BEGIN}\n\n{told}\n{signature}{END}{new.after}".encode()


def _size(rows: int) -> str:
    return next((name for below, name in _SIZES if rows < below), "n>1B")


def _config(name: str, folder: str, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A config as cards declare it.

    `datasets` names its cache after the folder's last name and this declaration, not after the files: without the checksum
    in it, `latest` of another output, or of another day, would come out of the cache.
    """
    data = [file for file in files if file["shard"] is not None]
    names = [str(file["name"]) for file in data]
    checksum = fingerprint([file["sha256"] for file in data])
    return {"config_name": name, "description": f"content {checksum[:32]}", "data_files": _data_files(folder, names)}


def _read_front(text: str, place: str) -> dict[str, Any]:
    try:
        front = loaded(text) or {}
    except yaml.YAMLError as error:
        at = f":{error.problem_mark.line + 2}" if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else ""
        raise Fix(f"{place}{at}: the YAML between the --- lines cannot be read", _MEND, Exit.INPUT) from error
    if not isinstance(front, dict):
        raise Fix(f"{place}: the YAML between the --- lines must be keys and values", _MEND, Exit.INPUT)
    return front


_MEND = "mend it (or delete the file), then run the same command again: it asks for nothing twice"


def loaded(text: str) -> Any:
    """What a card's YAML says. Raises: yaml.YAMLError, with its line"""
    try:
        return yaml.load(text, _LOADER)
    except yaml.YAMLError:
        return yaml.safe_load(text)  # raises again; its line is that of the mistake, not of the end of what libyaml read


# libyaml's are seven times as quick, but escape characters that PyYAML writes as they are.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _front(front: Mapping[str, Any]) -> str:
    text = _dumped(front, _DUMPER)
    if not text.isascii() or "\\" in text:
        text = _dumped(front, yaml.SafeDumper)
    return f"---\n{text}---\n"


def _dumped(front: Mapping[str, Any], dumper: Any) -> str:
    text: str = yaml.dump(dict(front), Dumper=dumper, sort_keys=False, allow_unicode=True, width=1000)
    return text
