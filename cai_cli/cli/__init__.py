"""The command line. A verb's module is imported when the verb is used, so that `cai --help` stays quick."""

from __future__ import annotations

import sys

from cai_cli.cli import _signals, _streams

VERBS = {
    "run": "All stages of the config, prompt by prompt.",
    "estimate": "What a run will cost, with an interval, before it does.",
    "generate": "Prompts to samples: n responses each.",
    "critique": "Samples to critiques, each against a principle.",
    "revise": "Critiqued samples to revisions.",
    "label-pairs": "Pairs of responses to a labeler's votes.",
    "score": "Samples to scores on named criteria.",
    "debias": "Votes to preferences, with a bias report.",
    "expand": "New prompts after a few, per topic, without near-duplicates.",
    "export": "A dataset to train on, in a trainer's own format.",
    "status": "What is done, spent, rejected and running.",
    "show": "Rows, round by round.",
    "why": "One row's lineage, request by request.",
    "diff": "What changed between two versions.",
    "retry": "Ask again for rows that were rejected, refused or cut off.",
    "verify": "Check every file against its manifest.",
    "audit": "People check the labels: draw pairs, score what they say.",
    "analyze": "What rows say: of judges, rounds, principles, refusals.",
    "ledger": "What paid replies take on disk, and which may go.",
    "config": "Check a config, or print its schema.",
    "constitution": "List, check, import or compare constitutions.",
    "simulate": "The simulated model as a server on 127.0.0.1.",
    "init": "Start a folder: config, constitution, prompts.",
    "doctor": "What stands between this machine and a run.",
    "help": "What exit codes, rows and configs mean.",
}


def main() -> None:
    """Run the command line and exit with its code."""
    _streams.open_missing()
    with _signals.heard():
        code = _code()
    sys.exit(code)


def _code() -> int:
    try:
        from cai_cli.cli import _app

        return _app.run()
    except BaseException as error:
        from cai_cli.cli import errors

        return errors.report(error)
