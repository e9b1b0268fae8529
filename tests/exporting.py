"""What tests of exports share: a config whose run is quick, and the rows of a version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from cai_cli import config as configs
from cai_cli.config import Config
from cai_cli.engine import plan, run, versions
from cai_cli.engine.files import File, read_file
from cai_cli.engine.formats import Line
from cai_cli.errors import Exit

CONFIG = """
name: tiny
output: {output}
constitution: constitutions/general.yaml
model: {{provider: simulated, world: {{refusal_rate: 0.1}}, max_tokens: 160}}
prompts: {{path: prompts.jsonl, kind: kind}}
split: {{test: {test}}}
shards: {{rows: 4}}
generate: {{samples: 2, systems: [null, Be careful.]}}
critique: {{}}
revise: {{rounds: 1}}
label_pairs: {{}}
debias: {{min_confidence: 0.5, ties: keep}}
"""


class Quiet:
    """Looks on and says nothing."""

    def begin(self, snapshot: Any) -> None: ...
    def tick(self, snapshot: Any) -> None: ...
    def end(self, snapshot: Any) -> None: ...


def loaded(folder: Path, test: float = 0.3, about: str = "garden", named: bool = False) -> Config:
    """Takes: the share of test prompts, what the prompts are about, whether they have given ids"""
    prompts = [{"prompt": f"What about {about} number {n}?", "kind": ["harmful", "harmless"][n % 2]} for n in range(14)]
    rows = [row | {"id": f"given-{n}"} if named else row for n, row in enumerate(prompts)]
    (folder / "prompts.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    (folder / "cai.yaml").write_text(CONFIG.format(output=folder / "out", test=test))
    return configs.load(folder / "cai.yaml", env={})


def ran(folder: Path, **options: Any) -> Config:
    """The same, with its run done: 14 prompts in 4 shards, with refused and truncated rows among them."""
    config = loaded(folder, **options)
    summary = run.execute(config, plan.sections_of(config), run.Options(), Quiet())
    assert summary.exit in (Exit.OK, Exit.REJECTS)
    return config


def rows_of(version: versions.Version, shard: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a version, each with its split."""
    for path in version.files(shard):
        for line in read_file(File(path, path.name)):
            assert isinstance(line, Line)
            yield path.name.partition("-")[0], line.row
