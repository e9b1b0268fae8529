"""Prompt caching: what recurs is found and marked, never part of the question, and billed as the server says."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import MessageCreateParams
from loopback import Server
from outside import ROOT, Cai, at, published, questions, write_config, write_rows
from pydantic import TypeAdapter

from cai_cli import prompts
from cai_cli.caching import cached_tokens, constant_tokens, minimum_of
from cai_cli.constitution import Criterion
from cai_cli.engine.budget import Budget
from cai_cli.engine.ledger import key_of
from cai_cli.flow import Model, Reply, Request
from cai_cli.judging import LABELS, Judge
from cai_cli.prices import price_of
from cai_cli.providers._messages import body_of, reply_from
from cai_cli.records import Pair, Turn
from cai_cli.shipped import shipped
from cai_cli.simulate.caches import Caches, parts_of
from cai_cli.simulate.messages import Messages

sys.path.insert(0, str(ROOT / "docs"))
import prompt_costs

CACHING = Model(provider="anthropic", name="claude-opus-5", params={"max_tokens": 64})  # from 512 tokens on
LONG = "All that is said before every question. " * 60
QUESTION = Turn(role="user", content=f"{LONG}\n\nThe question.")
REQUEST = Request(model=CACHING, messages=(QUESTION,), constant=(0, len(LONG) + 2))
MARK = {"type": "ephemeral"}


def marked(request: Request) -> list[tuple[str, dict[str, str]]]:
    """The texts that end in a mark, and the mark."""
    body = body_of(request)
    blocks = [block for content in (body.get("system"), *(turn["content"] for turn in body["messages"]))
              if isinstance(content, list) for block in content]  # fmt: skip
    return [(block["text"], block["cache_control"]) for block in blocks if "cache_control" in block]


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """A body with every content as one text."""

    def joined(content: Any) -> Any:
        return "".join(block["text"] for block in content) if isinstance(content, list) else content

    turns = [turn | {"content": joined(turn["content"])} for turn in body["messages"]]
    return body | {"messages": turns} | ({"system": joined(body["system"])} if "system" in body else {})


# What recurs.


@pytest.mark.parametrize("path", sorted(shipped("prompts").glob("*.md")), ids=lambda path: path.stem)
def test_of_a_shipped_template_what_is_constant_stands_first_and_is_most_of_it(path: Path) -> None:
    """Filled with the data of two rows, both begin with as much as is told, and the rest begins a paragraph."""
    kind = path.stem.partition("-")[0]
    template, offer = prompts.load(path, kind), prompts._OFFERS[kind].values
    same = {"reasoning": True, "words": False, "max_suggestions": 3, "count": 10, "first_label": "K", "second_label": "M"}
    settings = {name: same[name] for name in same.keys() & offer.keys()}
    rows = [{name: [text] if isinstance(value, list) else value if isinstance(value, bool) else text
             for name, value in offer.items()} | settings for text in ("one thing", "another")]  # fmt: skip
    first, second = (template.fill(**row) for row in rows)
    constant = template.constant(**settings)
    assert first[:constant] == second[:constant]
    assert first[:constant].endswith("\n\n")
    assert not first[constant:].startswith("\n")
    assert constant > 0.5 * len(template.fill(**rows[0] | {name: [] for name, value in offer.items() if isinstance(value, list)}))


def test_a_template_that_begins_with_data_has_no_constant_beginning(tmp_path: Path) -> None:
    front = "---\npurpose: p\nstage: score\nvariables: [{}]\nreply: text\n---\n"
    bodies = {
        "{{ response }}\n\n{{ description }} rated.": 0,
        "Rate it.\n\n{{ description }} of {{ response }}": len("Rate it.\n\n"),
        "Rate it.\n\nSee {{ description }} of {{ response }}": len("Rate it.\n\n"),
        "Rate it.\n\n{% if response == 'x' %}Odd.\n\n{% endif %}{{ description }}": len("Rate it.\n\n"),
        "One paragraph with {{ response }} and {{ description }}": 0,
    }
    for body, constant in bodies.items():
        (tmp_path / "t.md").write_text(front.format("response, description") + body)
        assert prompts.load(tmp_path / "t.md", "score").constant() == constant, body


def test_another_setting_is_another_beginning() -> None:
    template = prompts.load(shipped("prompts", "label-general.md"), "label")
    names = {"first_label": "A", "second_label": "B", "words": False}
    assert template.constant(reasoning=True, **names) != template.constant(reasoning=False, **names)


@pytest.mark.parametrize(("stage", "row"), [("critique", prompt_costs.SAMPLE), ("revise", prompt_costs.OPENED)])
def test_exemplars_recur_with_all_that_stands_before_the_row(stage: str, row: Any) -> None:
    one, other = (prompt_costs.request(stage, replace(row, id=name, response=name), exemplars=2) for name in ("p-0", "q-1"))
    turns, characters = one.constant
    assert turns == 4
    assert one.constant == other.constant
    assert one.messages[:turns] == other.messages[:turns]
    beginnings = {request.messages[turns].content[:characters] for request in (one, other)}
    assert len(beginnings) == 1
    assert one.messages[turns].content != other.messages[turns].content
    assert constant_tokens(one) > 0.9 * sum(len(turn.content) for turn in one.messages) / 4


def test_the_beginnings_of_a_judge_are_as_many_as_names_in_both_orders_twice() -> None:
    request = prompt_costs.request("label_pairs", prompt_costs.PAIR, exemplars=2)
    turns = request.constant[0]
    assert turns == 4
    template = prompts.load(shipped("prompts", "label-general.md"), "label")
    from cai_cli import exemplars

    judge = Judge(name="main", model=CACHING, template=template, seed=7, exemplars=exemplars.find("general", "label", Path(), 2))
    criterion, beginnings = Criterion(name="c", category="", text="Which is better?"), set()
    for n in range(300):
        pair = Pair(id=f"p-{n}", prompt_id="p", messages=(Turn(role="user", content="How?"),), prompt="How?",
                    response_a="So.", response_b="Thus.")  # fmt: skip
        asked = judge.question(pair, criterion, "ab" if n % 2 else "ba", 0)
        turns, characters = asked.constant
        beginnings.add((*asked.messages[:turns], asked.messages[turns].content[:characters]))
    assert len(beginnings) == 4 * len(LABELS)


# Whether it is kept.


@pytest.mark.parametrize(
    ("provider", "name", "least"),
    [
        ("anthropic", "claude-opus-5", 512), ("anthropic", "claude-sonnet-5-5", 512), ("anthropic", "claude-haiku-5-5", 512),
        ("anthropic", "claude-sonnet-4-5-20250929", 1024), ("anthropic", "claude-sonnet-5", 1024),
        ("anthropic", "claude-opus-4-8", 1024), ("anthropic", "claude-opus-4-7", 2048), ("anthropic", "claude-opus-4-5", 4096),
        ("anthropic", "claude-opus-4-6", 4096), ("anthropic", "claude-haiku-4-5", 4096), ("anthropic", "claude-fable-5", None),
        ("anthropic", "llama", None), ("openai", "claude-opus-5", None), ("simulated", "small-world", None),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 1024),
        ("bedrock", "anthropic.claude-opus-5-20260401-v1:0", 512),
        ("vertex", "claude-opus-4-7@20260201", 2048), ("vertex", "gemini", None),
    ],
)  # fmt: skip
def test_the_minimum_of_a_model(provider: str, name: str, least: int | None) -> None:
    assert minimum_of(Model(provider=provider, name=name)) == least


def test_a_price_of_the_config_keeps_the_minimum_or_gives_one() -> None:
    price = {"input": 1.0, "output": 2.0}
    assert minimum_of(Model(provider="anthropic", name="claude-opus-5", price=price)) == 512
    assert minimum_of(Model(provider="bedrock", name="anthropic.claude-opus-5-v1:0", price=price)) == 512
    assert minimum_of(Model(provider="anthropic", name="mine", price=price)) is None
    assert minimum_of(Model(provider="anthropic", name="mine", price=price | {"cache_minimum": 300})) == 300


def test_what_is_too_short_or_switched_off_is_not_marked() -> None:
    assert cached_tokens(REQUEST) == constant_tokens(REQUEST) == 600
    assert marked(REQUEST) == [(f"{LONG}\n\n", MARK)]
    off = replace(REQUEST, model=replace(CACHING, caching="off"))
    short = replace(REQUEST, constant=(0, 4 * 511))
    unknown = replace(REQUEST, model=replace(CACHING, name="claude-fable-5"))
    for request in (off, short, unknown, replace(REQUEST, constant=(0, 0))):
        assert cached_tokens(request) == 0
        assert marked(request) == []
    assert body_of(off) == plain(body_of(REQUEST))


# What is sent.

TURNS = (Turn(role="user", content=LONG), Turn(role="assistant", content="Yes."), QUESTION)
PLACES = [
    (replace(REQUEST, messages=TURNS, constant=(2, len(LONG))), [LONG]),
    (replace(REQUEST, messages=TURNS, constant=(2, 0)), ["Yes."]),
    (replace(REQUEST, messages=TURNS, constant=(0, 0), system=LONG), [LONG]),
    (replace(REQUEST, messages=(Turn(role="user", content="?"),), constant=(0, 0), system=LONG), [LONG]),
    (replace(REQUEST, messages=(Turn(role="user", content=f" {LONG}"),), constant=(0, 1), system=LONG), [LONG]),  # no blank block
    (replace(REQUEST, messages=(*TURNS, Turn(role="assistant", content="Begun")), constant=(2, len(LONG))), [LONG]),
]


@pytest.mark.parametrize(("request_", "texts"), PLACES)
def test_one_mark_stands_where_what_recurs_ends(request_: Request, texts: list[str]) -> None:
    assert [text for text, _ in marked(request_)] == texts
    body, unmarked = body_of(request_), body_of(replace(request_, model=replace(CACHING, caching="off")))
    assert plain(body) == unmarked
    TypeAdapter(MessageCreateParams).validate_python(body)


def test_an_hour_is_asked_for() -> None:
    hour = replace(REQUEST, model=replace(CACHING, caching="1h"))
    assert marked(hour) == [(f"{LONG}\n\n", MARK | {"ttl": "1h"})]


@pytest.mark.parametrize("caching", ["auto", "off", "1h"])
def test_the_question_is_the_same_however_it_is_billed(caching: str) -> None:
    other = replace(REQUEST, model=replace(CACHING, caching=caching), constant=(0, 0))
    assert key_of(other) == key_of(REQUEST)
    assert other.identity() == REQUEST.identity()


# What it costs.


def usage(**counts: Any) -> Reply:
    told = {"input_tokens": 3, "output_tokens": 2, **counts}
    message = {"type": "message", "content": [], "stop_reason": "end_turn", "usage": told}
    return reply_from(json.dumps(message).encode(), REQUEST)


def test_what_was_written_is_told_by_how_long_it_is_kept() -> None:
    split = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 900}
    reply = usage(cache_creation_input_tokens=1000, cache_read_input_tokens=50, cache_creation=split)
    assert (reply.tokens_cache_read, reply.tokens_cache_write, reply.tokens_cache_write_1h) == (50, 1000, 900)
    assert usage(cache_creation_input_tokens=1000).tokens_cache_write_1h == 0
    assert usage(cache_creation_input_tokens=5, cache_creation=split).tokens_cache_write_1h == 5
    assert usage(cache_creation_input_tokens=5, cache_creation="half").tokens_cache_write_1h == 0


class NoLedger:
    """Nothing is reserved here: what is asked of a budget is only its arithmetic."""


def test_a_reply_costs_what_was_read_and_written_and_never_more_than_was_set_aside() -> None:
    budget = Budget(NoLedger(), None)  # type: ignore[arg-type]  # never reached
    reply = Reply(text="", tokens_in=10, tokens_out=20, tokens_cache_read=100, tokens_cache_write=1000, tokens_cache_write_1h=900)
    assert budget.cost(CACHING, reply) == pytest.approx((10 + 100 * 0.1 + 100 * 1.25 + 900 * 2) * 5e-6 + 20 * 25e-6)
    for caching, times in (("auto", 1.25), ("1h", 2.0)):
        request = replace(REQUEST, model=replace(CACHING, caching=caching))
        assert budget.most(request) > times * 5e-6 * 600 * 4
        assert budget.most(request) == pytest.approx(times * 5e-6 * (len(QUESTION.content) + 80) + 64 * 25e-6)


# The simulated server's cache.


def asked(texts: list[tuple[str, str]], name: str = "claude-opus-5", **more: Any) -> tuple[Request, Any]:
    """A question whose turn consists of these texts, each with its mark: 5m, 1h or none."""
    blocks = [{"type": "text", "text": text} | ({"cache_control": MARK | {"ttl": mark}} if mark else {}) for text, mark in texts]
    body = {"model": name, "max_tokens": 9, "messages": [{"role": "user", "content": blocks}], **more}
    return Messages().question(body, 0), parts_of(body)


def test_what_is_kept_is_found_again_once_its_answer_has_begun_and_while_it_is_used() -> None:
    now = [0.0]
    caches = Caches(lambda: now[0])
    question = asked([("x" * 4000, "5m"), ("y" * 40, "")])
    first, beside = caches.bill(*question), caches.bill(*question)
    assert (first.fresh, first.read, first.written) == (10, 0, 1000)
    assert beside == first, "no answer has begun"
    caches.keep(first)
    for at_s in (100, 399, 698):  # every use is a new beginning
        now[0] = at_s
        again = caches.bill(*asked([("x" * 4000, "5m"), ("z" * 80, "")]))
        assert (again.fresh, again.read, again.written) == (20, 1000, 0)
    now[0] = 998
    assert caches.bill(*question).written == 1000


def test_an_hour_costs_another_kind_of_token_and_lasts_an_hour() -> None:
    now = [0.0]
    caches = Caches(lambda: now[0])
    question = asked([("x" * 4000, "1h"), ("y" * 40, "")])
    bill = caches.bill(*question)
    assert (bill.written, bill.written_1h) == (0, 1000)
    caches.keep(bill)
    now[0] = 3599
    assert caches.bill(*question).read == 1000


@pytest.mark.parametrize(("name", "more"), [("claude-opus-4-7", {}), ("unknown", {})])
def test_nothing_short_is_kept_and_nothing_by_models_without_a_cache(name: str, more: dict[str, Any]) -> None:
    bill = Caches().bill(*asked([("x" * 4000, "5m"), ("y" * 40, "")], name, **more))
    assert (bill.fresh, bill.written, bill.keeps) == (1010, 0, ())


def test_another_beginning_model_or_schema_is_not_found_and_a_longer_one_is_written_from_where_it_was_known() -> None:
    caches = Caches()
    caches.keep(caches.bill(*asked([("x" * 4000, "5m"), ("y" * 40, "")])))
    schema = {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}}}
    for other in (asked([("u" * 4000, "5m")]), asked([("x" * 4000, "5m")], "claude-sonnet-5"),
                  asked([("x" * 4000, "5m")], **schema), asked([("x" * 4000, "5m")], system="Be brief.")):  # fmt: skip
        assert caches.bill(*other).read == 0
    longer = caches.bill(*asked([("x" * 4000, ""), ("y" * 40, ""), ("z" * 400, "5m"), ("!", "")]))
    assert (longer.read, longer.written) == (1000, 110)


@pytest.mark.parametrize(
    ("mark", "text"), [({"type": "forever"}, "x"), ({"type": "ephemeral", "ttl": "2d"}, "x"), ("ephemeral", "x"), (MARK, " ")]
)
def test_a_mark_that_the_api_refuses_is_refused(server: Server, mark: Any, text: str) -> None:
    client = anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0)
    turns: Any = [{"role": "user", "content": [{"type": "text", "text": text, "cache_control": mark}]}]
    with pytest.raises(anthropic.BadRequestError, match="cache_control"):
        client.messages.create(model="claude-opus-5", max_tokens=9, messages=turns)
    five: Any = [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": MARK}] * 5}]
    with pytest.raises(anthropic.BadRequestError, match="A maximum of 4 blocks"):
        client.messages.create(model="claude-opus-5", max_tokens=9, messages=five)


# All of it.

STAGES: dict[str, Any] = {
    "generate": {"samples": 1}, "critique": {"exemplars": 2}, "revise": None, "label_pairs": None, "debias": None, "seed": 3,
}  # fmt: skip
PROMPTS = 12


def test_a_run_is_cheaper_with_caching_and_the_same_and_its_bill_is_the_servers(server: Server, cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(PROMPTS))
    price = price_of(CACHING)
    assert price is not None
    spent, files = {}, {}
    for caching in ("auto", "off"):
        server.reset()
        model = at(server.url, name=CACHING.name, prompt_caching=caching)
        write_config(tmp_path, output=caching, model=model, limits={"concurrency": 2}, **STAGES)
        code, out, err = cai("run", "c.yaml", "--json")
        assert code == 0, err
        told, counted = json.loads(out), server.stats()["tokens"][CACHING.name]
        theirs = price.dollars(counted["input"], counted["output"], counted["cache_read"], counted["cache_write_5m"])
        assert told["dollars"] == pytest.approx(theirs, abs=2e-6)
        critique = told["stages"]["critique"]
        assert (critique["tokens_cache_read"], critique["tokens_cache_write"]) == (
            counted["cache_read"], counted["cache_write_5m"])  # fmt: skip
        assert ("cached    " in err) == (caching == "auto")
        files[caching], spent[caching] = published(tmp_path / caching), theirs
    assert files["auto"] == files["off"]
    assert spent["auto"] < 0.65 * spent["off"]
    write_config(tmp_path, output="auto", model=at(server.url, name=CACHING.name), **STAGES)
    assert "input tokens read from the cache" in cai("status", "c.yaml")[1]
