"""The texts of a new folder's config: one shape, and what differs with where one starts."""

from __future__ import annotations

import json
import re

COMMANDS = {
    "try": ("cai run cai.yaml                                    make it, or go on where it stopped",
            "cai export cai.yaml --to sft --to preference        what trainers take"),
    "red-team": ("cai expand cai.yaml                                 new prompts after those in prompts/",
                 "cai run cai.yaml -i {output}/expand/latest          on the new ones; without -i on those in prompts/",
                 "cai export cai.yaml --to sft --to preference        what trainers take"),
    "pairs": ("cai run cai.yaml                                    judge the pairs, or go on where it stopped",
              "cai export cai.yaml --to preference                 what trainers take"),
    "votes": ("cai debias cai.yaml -i {input}      measure what biased the votes, and make preferences of them",
              "cai export cai.yaml --to preference                 what trainers take"),
}  # fmt: skip
COMMANDS["prompts"] = COMMANDS["try"]

CONFIG = """\
# A dataset by Constitutional AI and AI feedback.
{commands}
# `cai config schema` says all that can stand here, `cai config check cai.yaml` whether what stands here is right.

# What the dataset is called, and its folder, relative to where cai is run.
name: {name}
output: {output}
seed: 7                                 # what is picked and drawn here; another seed is another dataset
{parts}
split: {{test: 0.1}}                      # share of the prompts kept for testing
"""

CONSTITUTION = """
# What responses are held to. The file is yours: change it.
constitution: {constitution}
"""

PROMPTS = """
# One JSON object a line. column: where the prompt stands. kind: harmful, harmless, or the name of the column that says so.
# For a dataset of the Hub: prompts: {{dataset: OWNER/NAME, split: train, column: prompt}}
prompts: {prompts}
"""

OWN_PROMPTS = """
# What `cai init` found: {found}.{kind}
prompts: {prompts}
"""
NO_KIND = """
# Say which are harmful and which harmless, so that refusals of the harmless are counted: kind: harmful, or a column's name."""

PAIRS = """
# What `cai init` found: {found}.{gold}
prompts: {prompts}
"""
GOLD = """
# Is what stands in `chosen` what people chose? Then add gold: true: `cai analyze agreement` measures the judges against it."""

_DEBIAS = """\
debias:
  min_confidence: 0.6                   # pairs that the judges are less sure of are left out; 0.5 would be all
  ties: drop                            # or keep
"""
_PROBES = """\
  # Labels alone cannot tell a liking for long texts from quality. This asks again about 50 pairs of which only the length was
  # changed, and takes off what it was worth; in both orders that is 100 calls a judge:
  # probes: {{length: 50}}
"""
_AUDIT = """\
# People check some: cai audit sample cai.yaml, label, cai audit score cai.yaml -i FILE. What they say is gold for the next
# `cai debias`, which calibrates on 50 pairs or more. With this, `cai export` warns until they have, or where they disagree:
# audit: {{rate: 0.05, agreement_at_least: 0.8}}
"""

# A judge of another family than the model that writes, as labelers of a config.
OTHERS = {
    "Claude": """\
#   labelers: [{name: main}, {name: other, model: {provider: openai, name: gpt-5, price: {input: 1.25, output: 10}}}]
# with the price that the provider names, in dollars per million tokens.""",
    "": "#   labelers: [{name: main}, {name: other, model: {provider: anthropic, name: claude-sonnet-5-5}}]",
}

STAGES = (
    """
# Prompts to samples, then rounds of critique and revision. For the revised responses: cai export cai.yaml --to sft
generate: {{samples: 2}}                  # responses to a prompt
critique:
  template: general                     # the words of the question; `cai show cai.yaml --prompt critique` shows them
  principles: 1                         # of the constitution, asked about in one critique
  pick: weighted                        # how: by their weights; or uniform, in_order, all
revise: {{rounds: 2}}                     # at most; a response without fault is left alone

# Which of two samples is better. For the preferences: cai export cai.yaml --to preference
# Models favour texts of their own family. Where a real one writes, let one of another family judge as well:
{other}
label_pairs:
  pairs: samples                        # or initial_vs_revised: each response against its revision
  orders: both                          # which one is shown first sways a judge; over both orders that cancels
  # adaptive: true                      # instead: ask less where a pilot finds that enough; it takes 90 prompts
"""
    + _DEBIAS
    + _PROBES
    + _AUDIT
)

EXPAND = """
# New prompts after those in prompts/, topic by topic, by `cai expand cai.yaml`. Near-duplicates are left out.
expand:
  count: 200                            # in all
  mix: {{harmful: 2, harmless: 1}}        # harmless ones among them keep the trained model from refusing everything
  model: {{max_tokens: 2048}}             # room for ten prompts a reply
"""

JUDGED = (
    """
# Which of the two responses is better. A second judge of another family shows what the first one favours:
{other}
label_pairs:
  pairs: given                          # those of the file
  orders: both                          # which one is shown first sways a judge; over both orders that cancels
  # adaptive: true                      # instead: ask less where a pilot finds that enough; it takes 90 prompts
"""
    + _DEBIAS
    + _PROBES
    + _AUDIT
)

DEBIASED = (
    """
# The votes are in the file: nobody is asked. Gold beside them (`gold`: a, b or tie) tells how right they are, and 50 or more
# calibrate the labels, and tell a liking for long texts from quality.
"""
    + _DEBIAS
    + _AUDIT
)

SIMULATED = """
# The simulated model is built in: free, without a key, and of no use but for trying things out. For the real one, put
#   model: {{provider: anthropic, name: {anthropic}, max_tokens: 1024}}
#   limits: {{budget_usd: 5}}
# here, and its key into the environment: export ANTHROPIC_API_KEY=...
model: {{provider: simulated, name: {name}}}
"""

REAL = """
# Its key comes from the environment. To try things out without one: model: {{provider: simulated, name: {simulated}}}
# max_tokens: of one reply, thinking included.
model: {{provider: {provider}, name: {name}, max_tokens: 1024}}
limits: {{budget_usd: {budget:g}}}                 # dollars, over all runs; a run stops before it spends more, and can go on
"""

UNPRICED = """
# Its key comes from the environment. To try things out without one: model: {{provider: simulated, name: {simulated}}}
# max_tokens: of one reply, thinking included.
# Nobody knows what this model costs, so a run has NO BUDGET. With its price, in dollars per million tokens, a run stops
# before it spends more:
#   model: {{provider: {provider}, name: {name}, max_tokens: 1024, price: {{input: 1, output: 5}}}}
#   limits: {{budget_usd: 5}}
model: {{provider: {provider}, name: {name}, max_tokens: 1024}}
"""


def yaml(text: str) -> str:
    """A text as YAML: bare where it is read as this text, else in quotes."""
    from cai_cli.documents import parse_scalar

    if re.fullmatch(r"[A-Za-z][A-Za-z0-9./-]*", text) and parse_scalar(text) == text:
        return text
    return json.dumps(text, ensure_ascii=False).replace("${", "$${")
