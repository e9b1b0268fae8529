"""What a config makes of its input as both are now: by this one knows whether a version that was deleted comes back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from cai_cli.config import Config
from cai_cli.engine import pilot, plan
from cai_cli.engine.expand import sources
from cai_cli.engine.publish import lineages
from cai_cli.engine.retries import Retries
from cai_cli.engine.shards import Layout
from cai_cli.engine.waves import NAME as EXPAND
from cai_cli.errors import Fix


def made_now(config: Config) -> dict[str, str]:
    """By stage, the fingerprint of the version that `cai run`, or the stage's own verb, makes without any option.

    Asks nothing and writes nothing; reads the input. A stage whose input cannot be read, or came from stdin, is left out.
    """
    found: dict[str, str] = {}
    if config.prompts is not None and config.prompts.path == "-":
        return found
    for names in (plan.sections_of(config), *([name] for name in plan.alone_of(config))):
        try:
            found |= dict(_fingerprints(config, names)) if names else {}
        except Fix:
            continue
    return found


def _fingerprints(config: Config, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    steps = plan.steps_of(config, names)
    if names == [EXPAND]:
        rows = sources(config, steps[0], None, None)
        feed, shards = rows.feed, math.ceil(rows.expansion().settings.count / config.shards.rows)
        yield EXPAND, lineages([rows], feed, _layout(config, shards))[EXPAND].fingerprint
        return
    feed = plan.feed_of(config, steps, None, None)
    ready, layout = pilot.ready(config, steps, feed), _layout(config, feed.shards)
    made = lineages(ready, feed, layout, Retries.of(config.output_path).digests())
    yield from ((name, one.fingerprint) for name, one in made.items())


def _layout(config: Config, shards: int) -> Layout:
    return Layout(shards, config.split.test, config.shards.compression)
