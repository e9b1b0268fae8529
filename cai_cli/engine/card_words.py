"""What a dataset card tells people: sentences and tables, from manifests and bias reports alone, without a look at rows.

The same versions give the same bytes, on any day and machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from cai_cli.engine import card_costs, card_limits, card_story
from cai_cli.engine.markdown import bullets, code, prose, table
from cai_cli.engine.provenance import history
from cai_cli.engine.versions import Version

BIAS = "_bias.json"
SHORT = 16  # characters of a hash; the whole one is in the manifest
Facts = Mapping[str, Any]  # of one version, as manifests and histories hold them
Shown = Mapping[str, tuple[Version, Sequence[Mapping[str, Any]]]]


def told(shown: Shown, licence: str, place: str) -> str:
    """The marked part of a card.

    Takes: by stage, its version and columns; `licence`: what the card's YAML says, empty where it says none; `place`: what
    `load_dataset` is given
    """
    made = [facts for facts in history(version for version, _ in shown.values()) if "stage" in facts]
    reports = _reports(shown)
    parts = {
        "What is in it": f"{card_story.of(made)}{_inside(shown)}",
        "Content": _content(made),
        "How to load it": _loading(shown, place),
        "How it was made": _making(made),
        "Constitution": _constitutions(made),
        "Models and cost": card_costs.told(made),
        "Biases of the labels": "\n\n".join(_bias(report) for report in reports),
        "What was left out": _left(made),
        "Limits": bullets(card_limits.of(made, reports)),
        "Licence": _licence(licence),
        "Fingerprints": _hashes(made),
    }
    return "\n\n".join(f"## {name}\n\n{text}" for name, text in parts.items() if text) + "\n"


def _reports(shown: Shown) -> list[Facts]:
    """The bias reports of the versions, each once: exports of the same labels have the same."""
    files = [version.path / BIAS for version, _ in shown.values()]
    found = dict.fromkeys(path.read_bytes() for path in files if path.is_file())
    return [orjson.loads(data) for data in found]


def _inside(shown: Shown) -> str:
    head = ("stage", "version", "rows", "splits", "columns")
    rows = [
        (code(stage), code(version.name), int(version.manifest["rows"]),
         ", ".join(f"{code(split)} {rows:,}" for split, rows in _split_rows(version).items()),
         ", ".join(code(str(column["name"])) for column in columns))
        for stage, (version, columns) in shown.items()
    ]  # fmt: skip
    return table(head, rows, ("rows",))


def splits(names: Iterable[str]) -> list[str]:
    """The splits that data files are of: train, test, or parts of these, as train_sft.

    Takes: their names, each split-00000-of-00004 and an ending   Gives: the splits, those of train first
    """
    return sorted({name.partition("-")[0] for name in names}, key=lambda split: (not split.startswith("train"), split))


def _split_rows(version: Version) -> dict[str, int]:
    data = [(str(file["name"]), int(file["rows"])) for file in version.manifest["files"] if file["shard"] is not None]
    return {split: sum(rows for name, rows in data if name.startswith(f"{split}-")) for split in splits(name for name, _ in data)}


def _content(made: Sequence[Facts]) -> str:
    kinds = card_limits.kinds(made)
    counted = [f"{kinds[kind]:,} answer a prompt marked {kind}" for kind in ("harmful", "harmless") if kinds[kind]]
    said = f" Of the rows that were made first, {' and '.join(counted)}." if counted else ""
    asked = any(facts.get("replies") for facts in made)
    written = "Texts here were written by models. " if asked else ""
    return (
        f"**Warning:** {written}Prompts may ask for harm on purpose, and first responses, rejected ones and critiques "
        f"may hold or describe harm: they were not filtered.{said} Read before you train on anything here."
    )


def _loading(shown: Shown, place: str) -> str:
    loadable = [stage for stage, (version, _) in shown.items() if version.files()]
    if not loadable:
        return ""
    split = next(iter(_split_rows(shown[loadable[-1]][0])))
    lines = ["```python", "import datasets", "", f'rows = datasets.load_dataset("{place}", "{loadable[-1]}", split="{split}")']
    where = ["In this folder:", ""] if place == "." else []
    return "\n".join([*where, *lines, "```"])


def _making(made: Sequence[Facts]) -> str:
    head = ("stage", "version", "made from", "rows", "settings", "templates")
    versions = {str(facts["fingerprint"]): f"{facts['stage']} {facts['version']}" for facts in made}
    rows = [
        (code(str(facts["stage"])), code(str(facts["version"])), _sources(facts, versions), int(facts["rows"]), _settings(facts),
         ", ".join(f"{code(name)} {code(str(value)[:SHORT])}" for name, value in _templates(facts).items()))
        for facts in made
    ]  # fmt: skip
    return table(head, rows, ("rows",)) if rows else ""


def _sources(facts: Facts, versions: Mapping[str, str]) -> str:
    parents = [versions.get(str(one["fingerprint"]), str(one["stage"])) for one in facts.get("parents", ())]
    return ", ".join(map(code, parents)) or f"{int(facts.get('prompts', 0)):,} prompts given"


def _templates(facts: Facts) -> Mapping[str, str]:
    found: Mapping[str, str] = facts.get("fingerprints", {}).get("templates", {})
    return {name.rpartition("/")[2]: value for name, value in found.items()}


def _settings(facts: Facts) -> str:
    if "made_with" not in facts:
        return "not recorded"
    settings = {**facts["made_with"]["settings"], **facts.get("fingerprints", {}).get("options", {})}
    if not settings.get("exemplars", True):
        settings.pop("exemplar_file", None)
    return ", ".join(code(f"{name}={value}") for name, value in _flat(settings) if name != "template")


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Every setting by its dotted name, as one writes it."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value != []:
            yield f"{before}{name}", ",".join(map(_value, value if isinstance(value, list) else [value]))


def _value(value: Any) -> str:
    if isinstance(value, Mapping):  # what an export mixes in
        return f"{value.get('name', '?')}:{value.get('share', '?')}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _constitutions(made: Sequence[Facts]) -> str:
    found: dict[str, str] = {}
    for facts in made:
        if told := facts.get("made_with", {}).get("constitution"):
            found.setdefault(str(facts["fingerprints"]["constitution"]), "\n".join(_constitution(told, facts)))
    return "\n\n".join(found.values())


def _constitution(one: Mapping[str, Any], facts: Facts) -> Iterator[str]:
    hash_ = str(facts["fingerprints"]["constitution"])
    yield f"{code(one['name'])}, version {prose(str(one['version']))}, {code(hash_[:SHORT])}:"
    yield f"{one['principles']} principles to critique and revise by, {one['preferences']} preferences to compare by."
    yield ""
    head, shares = ("category", "principles", "share", "preferences", "share"), one["categories"]
    names = sorted({*shares["principles"], *shares["preferences"]})
    rows = [(prose(name), *_share(shares["principles"], name), *_share(shares["preferences"], name)) for name in names]
    yield table(head, rows, head[1:])


def _share(shares: Mapping[str, Any], name: str) -> tuple[int, str]:
    one = shares.get(name, {"count": 0, "share": 0.0})
    return int(one["count"]), f"{one['share']:.0%}"


def _bias(report: Facts) -> str:
    head = (
        "labeler",
        "votes",
        "position bias, log-odds",
        "95% interval",
        "same winner in both orders",
        "first minus second wins",
    )
    rows = [(code(name), *_labeler(name, one, report)) for name, one in report["labelers"].items()]
    lines = [table(head, rows, head[1:]), "", *_corrected(report), *_checked(report)]
    lines += [f"- {prose(warning)}." for warning in report["warnings"]]
    return "\n".join(lines)


def _labeler(name: str, one: Facts, report: Facts) -> tuple[int, str, str, str, str]:
    position, votes = one["position"], report["aggregation"]["labelers"].get(name, {}).get("votes", 0)
    ci = position["ci"]
    between = f"{ci[0]:+.3f} to {ci[1]:+.3f}" if ci else "not known"
    measured = (_number(position["b"], "+.3f"), between)
    return votes, *measured, _number(position["consistency"], ".1%"), _number(position["first_slot_excess"], "+.3f")


def _number(value: float | None, form: str) -> str:
    return "not known" if value is None else format(value, form)


def _corrected(report: Facts) -> Iterator[str]:
    orders = report["aggregation"]["labelers"].values()
    if any(one["both_orders"] for one in orders):
        yield "- Position bias cancels in pairs that were judged in both orders, whose log-odds are averaged."
    if any(one["one_order"] for one in orders):
        shifted = ", ".join(f"{code(name)} by {value:+.3f}" for name, value in report["aggregation"]["shift"].items())
        yield f"- In pairs that were judged in one order only it was {f'subtracted: {shifted}' if shifted else 'not removed'}."
    for name, one in report["labelers"].items():
        if (length := one.get("length")) and length["effect"] is not None:
            ci = f" (95% {length['ci'][0]:+.3f} to {length['ci'][1]:+.3f})" if length["ci"] else ""
            yield (
                f"- {code(name)} and length: {length['effect']:+.3f} log-odds per standard deviation{ci}. Not corrected: from "
                "labels alone, bias and quality cannot be told apart."
            )


def _checked(report: Facts) -> Iterator[str]:
    after, before = report["after"], report["before"]
    if report["calibration"]["gold"]:
        accuracy = f"{_number(before['accuracy'], '.1%')} before correction, {_number(after['accuracy'], '.1%')} after"
        yield f"- Against {report['calibration']['gold']:,} gold labels: {accuracy}, over the pairs that were kept."
    yield f"- Of the pairs with a verdict, {_number(after['kept_share'], '.1%')} were kept."


def _left(made: Sequence[Facts]) -> str:
    head = ("stage", "came in", "rows", "rejected", "filtered")
    rows = [
        (code(str(facts["stage"])), int(facts.get("came_in", facts["rows"])), int(facts["rows"]), _reasons(facts["rejected"]),
         _reasons(facts["filtered"]))
        for facts in made
        if facts["rejected"] or facts["filtered"]
    ]  # fmt: skip
    return table(head, rows, ("came in", "rows")) if rows else "Nothing: every row that came in is there."


def _reasons(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{count:,} {code(reason)}" for reason, count in ordered) or "0"


def _licence(licence: str) -> str:
    if licence:
        return f"{code(licence)}, given by whoever published this. What the models and the prompts come with holds besides."
    return (
        "None was given. To give one, write `license: ID` between the `---` lines at the top "
        "of this file, such as `license: cc-by-4.0`, or push with `--license ID`."
    )


def _hashes(made: Sequence[Facts]) -> str:
    head = ("stage", "version", "config", "constitution", "input", "code")
    names = ("config", "constitution", "input")
    rows = [
        (code(str(facts["stage"])), code(str(facts["fingerprint"])[:SHORT]),
         *(code(str(facts["fingerprints"].get(name, ""))[:SHORT]) for name in names),
         code(str(facts["fingerprints"].get("code", ""))))
        for facts in made
        if "fingerprints" in facts
    ]  # fmt: skip
    if not rows:
        return ""
    note = "The first characters; in full, with the sha256 of every file, in each version's `_manifest.json`."
    return f"{table(head, rows)}\n\n{note}"
