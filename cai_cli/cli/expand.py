"""cai expand"""

from __future__ import annotations

from cai_cli.cli._stage import stage_app

HELP = """New prompts after a few: the config's prompts are seeds, shown as examples to a model that writes more like them, by
kind and topic. Near-duplicates are left out, and so is what is like a test set (expand.against).
--limit N: N new prompts at most.

\b
Examples:
  cai expand configs/expand.yaml
  cai expand my.yaml --limit 20 --dry-run
  cai expand my.yaml -i seeds.jsonl -o - > prompts.jsonl
"""

app = stage_app("expand", HELP)
