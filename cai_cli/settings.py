"""The sections of a config that are not a stage's own. A stage's section stands in the stage's file, a table's in the table's.

The text under a field is its documentation: `cai config schema` and editors show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cai_cli.flow import Model

if TYPE_CHECKING:
    from cai_cli.price_lists import PriceList

Text = Annotated[str, StringConstraints(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A part of the config: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), strict=True)


class Rates(Section):
    """What caching and batches cost, as multiples. Default: what the price list says of the model, or of its provider."""

    cache_read: Amount | None = None
    """Of the price of an input token: one that was read from the cache."""
    cache_write: Amount | None = None
    """Of the price of an input token: one that was written to it, for five minutes."""
    cache_write_1h: Amount | None = None
    """Of the price of an input token: one that was written to it, for an hour."""
    batch: Amount | None = None
    """Of the price of a whole request: one in a batch."""

    def said(self) -> dict[str, Any]:
        """What is said here, by the names of `prices.Price`."""
        return {key: value for key, value in self.model_dump().items() if value is not None}


class Band(Section):
    """What a request costs whose prompt is longer."""

    prompt_tokens: Count
    """Longer than so many tokens."""
    input: Amount
    """Dollars per million input tokens."""
    output: Amount
    """Dollars per million output tokens."""


class Price(Rates):
    input: Amount
    """Dollars per million input tokens."""
    output: Amount
    """Dollars per million output tokens."""
    above: list[Band] = []
    """Prices of longer prompts, which hold for the whole request."""
    cache_minimum: Count | None = None
    """Tokens of a constant beginning below which the server caches nothing. Without one nothing is marked for the cache."""


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
    prompt_caching: Literal["auto", "off", "1h"] = "auto"
    """Let the server keep what stands before every question: the system prompt, exemplars, the constant beginning of a template.
    auto: where the Messages API is spoken and it is at least `cache_minimum` of the price list long; writing it costs 1.25 times
    its price, reading it within 5 minutes a tenth or less. 1h: kept for an hour, for twice its price: for runs whose questions
    come more than 5 minutes apart. off: never."""
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

    def model(self, prices: PriceList | None = None) -> Model:
        """The same as a request carries it: only parameters that were set are sent. `prices`: the config's own list"""
        params: dict[str, Any] = {"max_tokens": self.max_tokens}
        params |= {name: value for name in _SENT if (value := getattr(self, name)) is not None}
        urls = [self.base_url] if isinstance(self.base_url, str) else self.base_url or []
        return Model(
            provider=self.provider, name=self.name, params=params, base_urls=tuple(urls), key_env=self.key_env or "",
            allow_http=self.allow_http, price=self._price(prices), retry_truncated=self.retry_truncated,
            caching=self.prompt_caching,
        )  # fmt: skip

    def _price(self, prices: PriceList | None) -> dict[str, Any] | None:
        """What the config says of the price; None: nothing."""
        listed = prices.of(self.provider, self.name) if prices else None
        if self.price is None:
            return None if listed is None else dict(listed)
        return {**(listed or {}), "dated": "", **self.price.said()}


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
    """Send no faster than this, all runs of this user on this machine that ask the same servers with the same key together.
    null: as the server's answers say."""
    input_tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    """Send no more input tokens than this, estimated before a request and put right after it. Cache reads do not count."""
    output_tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    """Ask for no more output tokens than this: what replies are expected to take, put right when they have come."""
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


class EstimateSection(Section):
    """What people would cost, beside the model: `cai estimate`. Rates and speeds are assumptions; put in your own."""

    crowd_usd_per_hour: Annotated[float, Field(gt=0)] = 12.0
    """What an hour of crowd work costs, in dollars. Default: what Prolific advises to pay at the least, without its fee."""
    crowd_labels_per_hour: Annotated[float, Field(gt=0)] = 30.0
    """Pairs that one of the crowd compares in an hour. Default: two minutes each, an assumption."""
    expert_usd_per_hour: Annotated[float, Field(gt=0)] = 60.0
    """What an hour of an expert costs, in dollars. Default: an assumption."""
    expert_labels_per_hour: Annotated[float, Field(gt=0)] = 20.0
    """Pairs that an expert compares in an hour. Default: three minutes each, an assumption."""
    verified: Share | None = None
    """Share of the AI's labels that people check. Default: audit.rate."""
    labels_per_item: Count = 1
    """People who compare each pair. Default: one, as for most published preference data."""
