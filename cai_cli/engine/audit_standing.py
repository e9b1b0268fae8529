"""Whether people have checked the labels that an export is made of, and what they found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cai_cli.auditing.advising import FEW, POOR
from cai_cli.config import Config
from cai_cli.engine import audit_files as files
from cai_cli.engine.versions import Version
from cai_cli.reports.quantities import counted

LABELLED = ("debias", "label-pairs")
NONE, OUTDATED, BELOW, PASSED = "none", "outdated", "below", "passed"


def standing_of(config: Config, source: Version) -> dict[str, Any] | None:
    """How an audit of these labels stands, as plain JSON values; None: nobody asked for one, or the source has no labels.

    An audit is asked for by a section `audit` in the config, or by having begun one.
    Gives: `state`: none (no score yet), outdated (the score is of another version), below (audit.agreement_at_least), passed;
    of a score also labels, n, agreement, ci, agreement_at_least
    """
    if source.path.parent.name not in LABELLED:
        return None
    score, folder = files.read_score(config.output_path), files.folder_of(config.output_path)
    if "audit" not in config.model_fields_set and not (folder / files.LABELS).exists():
        return None
    if score is None:
        return {"state": NONE}
    kept, at_least = score["agreement"]["kept"], config.audit.agreement_at_least
    agreement = kept["raw"]["value"]
    told = {"labels": score["labels"], "n": kept["n"], "ci": kept["raw"]["ci"]}
    told |= {"agreement": agreement, "agreement_at_least": at_least}
    if score["fingerprint"] != source.fingerprint:
        return {"state": OUTDATED, **told}
    return {"state": PASSED if agreement is not None and agreement >= at_least else BELOW, **told}


def warning_of(standing: Mapping[str, Any], config: Config) -> str:
    """What to say of it before anybody trains on these labels; empty: they passed, by pairs enough to tell."""
    state, path = standing["state"], config.path
    if state == NONE:
        return f"nobody has audited these labels: cai audit sample {path}, label, then cai audit score {path} -i FILE"
    if state == OUTDATED:
        return f"the audit is of {standing['labels']}, and the labels were made anew since: cai audit score {path}"
    if state == BELOW:
        return f"people agree with {agreed(standing)}, below audit.agreement_at_least, {standing['agreement_at_least']:.0%}"
    if standing["ci"] is not None and standing["ci"][0] < POOR:
        more = f"label more: cai audit sample {path} -n {_more(standing)}"
        return f"people agree with {agreed(standing)}: too few to rule out {POOR:.0%}; {more}"
    return ""


def _more(standing: Mapping[str, Any]) -> int:
    """Pairs to draw, of which not all will be kept ones."""
    return max(2 * FEW, 2 * int(standing["n"]))


def agreed(standing: Mapping[str, Any]) -> str:
    """84.2% (79.1% to 88.3%) of the labels, by 193 pairs."""
    if standing["agreement"] is None:
        return "none of the labels that are kept: no pair of them was looked at"
    ci = standing["ci"]
    between = f" ({ci[0]:.1%} to {ci[1]:.1%})" if ci is not None else ""
    return f"{standing['agreement']:.1%}{between} of the labels, by {counted(standing['n'], 'pair')}"
