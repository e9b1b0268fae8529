"""What a dataset does not show, or may get wrong, as far as its own data say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cai_cli.engine.markdown import code, prose
from cai_cli.oversights import CATEGORIES, ONE_SIDED

Facts = Mapping[str, Any]

SHARE = 0.01  # of rows refused or cut off from which it is worth a sentence
MANY = 0.05  # the same of rows that were rejected


def of(made: Sequence[Facts], reports: Sequence[Facts]) -> list[str]:
    """Sentences, as markdown. Takes: the versions and those behind them, the oldest first; their bias reports"""
    found = [*_records(made), *_models(made), *_prompts(made), *_constitution(made), *_labels(made, reports), *_rows(made)]
    return list(dict.fromkeys(found)) or ["None that these data show by themselves."]


def kinds(made: Sequence[Facts]) -> Counter[str]:
    """Rows by the kind of their prompts, where they were made first: harmful, harmless, other_kind, no_kind."""
    first = [facts.get("marks", {}) for facts in made if not facts.get("parents")]
    names = ("harmful", "harmless", "other_kind", "no_kind")
    return Counter({name: sum(int(marks.get(name, 0)) for marks in first) for name in names})


def _records(made: Sequence[Facts]) -> Iterator[str]:
    bare = [_named(facts) for facts in made if "made_with" not in facts or "models" not in facts]
    if bare:
        yield f"{', '.join(bare)}: made by an earlier version of cai, which did not write down settings and models."
    have = {str(facts["fingerprint"]) for facts in made}
    lost = [_named(facts) for facts in made if any(one["fingerprint"] not in have for one in facts.get("parents", ()))]
    if lost:
        yield f"{', '.join(lost)}: made from a version that nothing is known of any more."
    mixed = [one for facts in made for one in facts.get("fingerprints", {}).get("options", {}).get("mix", ())]
    if rows := sum(int(one["taken"]) for one in mixed):
        names = ", ".join(code(str(one["name"])) for one in mixed)
        yield f"{rows:,} rows were mixed in from {names}: how they were made is not known here."
    given = [facts for facts in made if not facts.get("parents") and facts["stage"] not in ("generate", "expand")]
    if given:
        yield f"The rows that {', '.join(map(_named, given))} worked on came from outside: how they were made is not recorded."


def _named(facts: Facts) -> str:
    return f"{code(str(facts['stage']))} {code(str(facts['version']))}"


def _who(facts: Facts) -> set[tuple[str, str]]:
    return {(str(one["provider"]), str(one["name"])) for one in facts.get("models", ())}


def _models(made: Sequence[Facts]) -> Iterator[str]:
    simulated = [code(str(facts["stage"])) for facts in made if any(provider == "simulated" for provider, _ in _who(facts))]
    if simulated:
        stages = ", ".join(dict.fromkeys(simulated))
        yield f"A simulated model answered for {stages}: its texts and verdicts say nothing. This is for trying things out."
    pairs = {(one["answered"], one["name"]) for facts in made for one in facts.get("models", ())}
    if others := sorted({answered for answered, name in pairs if answered and name and answered != name}):
        yield f"By what servers say of themselves, others answered than were asked: {', '.join(map(code, others))}."


def _prompts(made: Sequence[Facts]) -> Iterator[str]:
    found = kinds(made)
    if not found["harmful"] and not found["harmless"]:
        if found["no_kind"]:
            yield "Which prompts ask for harm was not marked, so refusals of harmless ones cannot be told from the others."
        return
    if not found["harmless"]:
        yield "No prompt is marked harmless: what this teaches of harmless requests, refusing them among it, was never seen."
    if not found["harmful"]:
        yield "No prompt is marked harmful: what this teaches of harmful requests was never seen."


def _constitution(made: Sequence[Facts]) -> Iterator[str]:
    for facts in made:
        told = facts.get("made_with", {}).get("constitution")
        for part, shares in (told or {}).get("categories", {}).items():
            yield from _one_sided(f"The {part} of the constitution {code(told['name'])}", shares)


def _one_sided(which: str, shares: Mapping[str, Any]) -> Iterator[str]:
    heavy = [(name, one["share"]) for name, one in shares.items() if one["share"] > ONE_SIDED]
    for name, share in heavy:
        yield f"{which}: {share:.0%} of their weight is on {prose(name)}."
    missing = [name for name in CATEGORIES if not shares.get(name, {"share": 0})["share"]]
    if missing and "general" not in shares:
        yield f"{which}: none is about {' or '.join(missing)}."


def _labels(made: Sequence[Facts], reports: Sequence[Facts]) -> Iterator[str]:
    yield from _audits(made)
    judged = [facts for facts in made if facts["stage"] == "label-pairs"]
    writers = {who for facts in made if facts["stage"] in ("generate", "revise") for who in _who(facts)}
    for facts in judged:
        yield from _judges(facts, writers)
    audited = any(map(_was_audited, made))
    for report in reports:
        yield from _votes(report, audited=audited)
    revised = [facts for facts in made if facts["stage"] == "revise"]
    if any(facts.get("made_with", {}).get("settings", {}).get("accept") == "always" for facts in revised):
        yield "Every revision was taken without being compared with what it revises: some may be worse."


def _was_audited(facts: Facts) -> bool:
    standing = facts.get("fingerprints", {}).get("audit")
    if standing is None:
        return False
    from cai_cli.engine.audit_standing import NONE

    return bool(standing["state"] != NONE)


def _audits(made: Sequence[Facts]) -> Iterator[str]:
    """What people found who checked the labels, where that was asked for."""
    for facts in made:
        standing = facts.get("fingerprints", {}).get("audit")
        if standing is not None:
            yield f"{code(str(facts['stage']))}: {_audited(standing)}."


def _audited(standing: Mapping[str, Any]) -> str:
    from cai_cli.engine.audit_standing import BELOW, NONE, OUTDATED, agreed

    if standing["state"] == NONE:
        return "people were to audit its labels, and have not"
    found = f"people agree with {agreed(standing)}"
    if standing["state"] == OUTDATED:
        return f"{found} of an earlier version, {code(str(standing['labels']))}; these were made anew since"
    below = "below" if standing["state"] == BELOW else "at least"
    return f"{found}: {below} the {standing['agreement_at_least']:.0%} that were asked for"


def _judges(facts: Facts, writers: set[tuple[str, str]]) -> Iterator[str]:
    settings = facts.get("made_with", {}).get("settings", {})
    if "labelers" in settings and len(settings["labelers"]) < 2:
        yield "One labeler judged all pairs: nobody checked it, and its tastes are in every label."
    if same := _who(facts) & writers:
        models = ", ".join(sorted(code(name or provider) for provider, name in same))
        yield f"{models} judged texts that it wrote itself: it may prefer its own."
    if settings.get("orders") == "one":
        yield "Each pair was judged in one order only: position bias averages out over pairs, and stays in each of them."


def _votes(report: Facts, *, audited: bool) -> Iterator[str]:
    labelers = report["aggregation"]["labelers"]
    if bare := [code(name) for name, one in labelers.items() if one["votes_only"]]:
        yield f"{', '.join(bare)} gave verdicts without probabilities: how sure a label is comes from counting votes."
    if not report["calibration"]["gold"] and not audited:
        yield "No label was checked against people's."
    if (kept := report["after"]["kept_share"]) is not None and kept < 1:
        yield f"{1 - kept:.1%} of the judged pairs are left out as too close to call: what is left is easier than what was asked."


def _rows(made: Sequence[Facts]) -> Iterator[str]:
    for facts in made:
        stage, rows, marks = code(str(facts["stage"])), int(facts["rows"]), facts.get("marks", {})
        for mark, words in (("truncated", "were cut off at `max_tokens`"), ("refused", "were refused by the provider")):
            if rows and (count := int(marks.get(mark, 0))) >= SHARE * rows and count:
                yield f"{count:,} of {rows:,} responses in {stage} ({count / rows:.1%}) {words}."
        rejected, came_in = sum(facts["rejected"].values()), int(facts.get("came_in", 0))
        if came_in and rejected > MANY * came_in:
            yield f"{rejected / came_in:.1%} of what came into {stage} was rejected: what is left may not be like what came in."
