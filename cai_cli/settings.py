"""The sections of a config that are not a stage's own. A stage's section stands in the stage's file, a table's in the table's.

The text under a field is its documentation: `cai config schema` and editors show it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cai_cli.flow import Model

Text = Annotated[str, StringConstraints(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the config: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), strict=True)


class Price(Section):
    input: Annotated[float, Field(ge=0)]
    """Dollars per million input tokens."""
    output: Annotated[float, Field(ge=0)]
    """Dollars per million output tokens."""


_OF_A_PROVIDER = ("name", "base_url", "key_env", "allow_http", "top_k", "thinking", "logprobs", "world")
_SENT = ("temperature", "top_p", "top_k", "stop_sequences", "effort", "thinking", "logprobs", "world")


class ModelSection(Section):
    """Who is asked. The top-level `model` is the default of every stage; a stage's own `model` overrides single keys."""

    provider: Text = "anthropic"
    """Where replies come from: anthropic (the Messages API), openai (any chat-completions server), bedrock, vertex, simulated
    (built in, free, needs no key), or one that another package adds."""
    name: str = ""
    """The model's name, as its provider spells it."""
    max_tokens: Count = 512
    """The longest reply, in tokens."""
    base_url: Text | Annotated[list[Text], Field(min_length=1)] | None = None
    """Another server that speaks the provider's protocol (or several that share the work). Default: the provider's own."""
    key_env: str | None = None
    """The environment variable that holds the key for a `base_url` that is neither the provider's own nor on this machine."""
    allow_http: bool = False
    """Allow plain http to a host other than this machine."""
    retry_truncated: bool = False
    """Ask once more, with twice the tokens, when a reply was cut off at max_tokens."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Sent only if set. Current Claude models take none; older ones are then asked through the API version that does."""
    top_p: Share | None = None
    """Sent only if set."""
    top_k: Count | None = None
    """Sent only if set."""
    stop_sequences: list[Text] | None = None
    """Sent only if set."""
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    """How much work the model puts into a reply. Sent only if set."""
    thinking: dict[str, Any] | None = None
    """The Messages API's `thinking` object. Sent only if set. Thinking is never part of a response."""
    logprobs: bool | None = None
    """Whether verdicts and scores are asked for with log-probabilities, by providers that can (openai). Default: yes.
    false: for a server that refuses the question."""
    price: Price | None = None
    """Dollars per million tokens, where the price list does not know the model or you pay another price."""
    world: dict[str, Any] | None = None
    """Settings of the simulated model's world (provider: simulated only): its judge's biases, its refusal rate, its noise."""

    def over(self, default: ModelSection) -> ModelSection:
        """These settings where they were set, the default's elsewhere; but nothing that is true of the default's model or server
        only: another name drops its price, another provider all that belongs to the first one."""
        set_here = {name: getattr(self, name) for name in self.model_fields_set}
        mine: tuple[str, ...] = ("price",) if set_here.get("name", default.name) != default.name else ()
        if set_here.get("provider", default.provider) != default.provider:
            mine = (*_OF_A_PROVIDER, "price")
        dropped = {name: type(self).model_fields[name].get_default() for name in mine}
        return default.model_copy(update=dropped | set_here)

    def model(self) -> Model:
        """The same as a request carries it: only parameters that were set are sent."""
        params: dict[str, Any] = {"max_tokens": self.max_tokens}
        params |= {name: value for name in _SENT if (value := getattr(self, name)) is not None}
        urls = [self.base_url] if isinstance(self.base_url, str) else self.base_url or []
        return Model(
            provider=self.provider, name=self.name, params=params, base_urls=tuple(urls), key_env=self.key_env or "",
            allow_http=self.allow_http, price=self.price.model_dump() if self.price else None,
            retry_truncated=self.retry_truncated,
        )  # fmt: skip


class Labeler(Section):
    """One judge."""

    name: Text
    """Its name in votes and bias reports."""
    model: ModelSection | None = None
    """Keys that override the stage's model for this judge."""


class Panelist(Labeler):
    """One judge of several that label pairs."""

    escalate: Share | None = None
    """Ask this judge only about the share of pairs that those without `escalate` are least sure of, and let it decide there.
    A pilot finds how sure that is, and keeps it. Where a judge that is biased is sure nevertheless, its errors stay.
    null: about every pair."""


class PromptsSection(Section):
    """Where prompts come from: a file or folder (`path`) or a `datasets` name (`dataset`)."""

    path: str | None = None
    """JSONL, JSON, CSV, Parquet, plain text (one a line), gzip or zstd of these, a folder of them, or - for stdin.
    Relative to the config."""
    dataset: str | None = None
    """A name or folder that `datasets.load_dataset` takes."""
    data_dir: str | None = None
    """Passed to `load_dataset`."""
    config: str | None = None
    """The dataset's configuration, passed to `load_dataset`."""
    split: str = "train"
    """The dataset's split."""
    column: str | None = None
    """The column that holds the prompt: a string, or a list of {role, content}.
    Default: prompt, messages, or an hh-rlhf transcript."""
    kind: str = ""
    """harmful, harmless, or the name of the column that says so for each row."""
    limit: Count | None = None
    """Use only the first N prompts (after shuffling)."""
    shuffle: bool = False
    """Shuffle by seed. The whole input is held in memory."""
    keep: list[Text] = []
    """Input columns to keep; they travel in `meta` as one JSON string."""
    gold: bool = False
    """Given pairs only: the input's chosen side is the truth, and is kept in `gold`."""


class LimitsSection(Section):
    concurrency: Count | Literal["auto"] = "auto"
    """Requests in flight at once. auto: grows while the server takes it, halves when it says 429."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """Send no faster than this."""
    budget_usd: Annotated[float, Field(ge=0)] | None = None
    """Stop, resumably, before more than this is spent on this output, over all runs."""
    max_reject_rate: Share = 0.2
    """A run that is whole but rejected more than this share of its rows exits 3."""
    max_abstain_rate: Share = 0.1
    """Stop, resumably, when more than this share of a labeler's votes is none: refused, cut off, or not to be read."""
    max_outage: str = "6h"
    """How long an unreachable or overloaded provider is waited for: 90s, 30m, 6h."""


class ShardsSection(Section):
    rows: Count = 1000
    """Prompts in a shard."""
    compression: Literal["none", "gzip", "zstd"] = "none"
    """zstd needs the zstandard package, here and where the data is read."""


class SplitSection(Section):
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of prompts that go to the test split, by a hash of prompt_id: the same in every stage and export."""
