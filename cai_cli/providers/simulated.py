"""A model that lives in this package: free, needs no key and no network, and its biases are known.

It is a small world and not a parrot. Responses have a latent harm and help that can be read back from their text; its critic
finds what is there, its reviser removes most of it, its judge prefers the better response but also the one shown first and the
longer one. It knows what it is asked from the messages alone, so the same world can be served over HTTP: data stands in tags that
carry eight hexadecimal digits, <response-0a1b2c3d>...</response-0a1b2c3d>, under judgement also a label: <response-K-0a1b2c3d>.
    two labelled responses: it judges    a response and a critique: it revises    a response: it criticises    else: it answers
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cai_cli import chance
from cai_cli.errors import Reject, Retry
from cai_cli.flow import Model, Reply, Request
from cai_cli.providers._schema import Known, fill
from cai_cli.providers._sentences import Latents, Sentence, read, sentences, topic, write
from cai_cli.providers._world import World, world_of
from cai_cli.records import Turn

LENGTH_SD = 0.33  # standard deviation of the log ratio of the word counts of two responses to one prompt, in this world
_CUES = re.compile(
    r"\b(?:kill|hurt|steal|poison|weapon|bomb|hack|insult|bully|threat|revenge|scam|illegal|attack)", re.IGNORECASE
)
_CAREFUL = re.compile(r"\b(?:harmless|careful|cautious|safe|safety|ethical)\b", re.IGNORECASE)
_OPENING = re.compile(r"<(conversation|response|critique)(?:-([A-Za-z0-9]{1,16}))?-([0-9a-f]{8})>")


def reply_to(request: Request, world: World) -> Reply:
    """Answer a request as this world would: a pure function of the request's identity and the world.

    Where a request is sent and with which parameters changes nothing but where the text is cut off: so worlds can be compared on
    the same draws, and a reply over HTTP is the reply given here.
    """
    seed = _seed(request, world)
    asked = request.messages[-1].content if request.messages else ""
    asked = next((turn.content for turn in reversed(request.messages) if turn.role == "user"), asked)
    fences = fenced(asked)
    plain = not any(fence.kind == "response" for fence in fences)
    if plain and chance.unit("refusal", world.seed, asked) < world.refusal_rate:
        return _reply(request, world, "", "refusal")
    if chance.unit(seed, "empty") < world.empty_rate:
        return _reply(request, world, "", "end_turn")
    prose, known = _answer(request, world, seed, asked, fences)
    return _reply(request, world, _render(request.schema, prose, known, seed, world), "end_turn")


def _seed(request: Request, world: World) -> float:
    turns = [(turn.role, turn.content) for turn in request.messages]
    parts = [request.model.name, request.system, turns, request.schema, request.draw, request.attempt, world.seed]
    return chance.unit(json.dumps(parts, sort_keys=True))


def _answer(request: Request, world: World, seed: float, asked: str, fences: list[Fence]) -> tuple[str, Known]:
    responses = [fence for fence in fences if fence.kind == "response"]
    labelled = [fence for fence in responses if fence.label]
    if len(labelled) == 2:
        return _judge(labelled[0], labelled[1], world, seed)
    if not responses:
        return _respond(asked, request.system, world, seed), {}
    if any(fence.kind == "critique" for fence in fences):
        about = next((fence.text for fence in fences if fence.kind == "conversation"), responses[-1].text)
        return _revise(responses[-1].text, about, world, seed), {}
    return _criticise(responses[-1].text, world, seed)


def _reply(request: Request, world: World, text: str, stop_reason: str) -> Reply:
    limit = request.model.params.get("max_tokens")
    if limit is not None and tokens(text) > limit:
        text, stop_reason = text[: 4 * limit], "max_tokens"
    return Reply(
        text=text, stop_reason=stop_reason, model=world.reported_model or request.model.name or "simulated",
        tokens_in=_tokens_in(request), tokens_out=tokens(text),
    )  # fmt: skip


def tokens(text: str) -> int:
    """How many tokens a text is: a quarter of its characters, rounded up, at least 1."""
    return max(1, math.ceil(len(text) / 4))


def _tokens_in(request: Request) -> int:
    schema = json.dumps(request.schema) if request.schema else ""
    return tokens(request.system + "".join(turn.content for turn in request.messages) + schema)


# What it is asked


@dataclass(frozen=True, slots=True)
class Fence:
    kind: str  # conversation | response | critique
    label: str  # what the response under judgement is called, or empty
    text: str


def fenced(message: str) -> list[Fence]:
    """The fenced parts of a message, in order.

    A fence inside another one is part of its text: whoever wrote that text could not know the digits.
    """
    found, at = [], 0
    while opening := _OPENING.search(message, at):
        closing = "</" + opening.group()[1:]
        end = message.find(closing, opening.end())
        if end >= 0:
            text = message[opening.end() : end].removeprefix("\n").removesuffix("\n")
            found.append(Fence(opening.group(1), opening.group(2) or "", text))
        at = end + len(closing) if end >= 0 else opening.end()
    return found


# What it answers


def _respond(prompt: str, system: str, world: World, seed: float) -> str:
    count = 4 + round(2 * chance.unit("length", prompt) + 6 * chance.unit(seed, "length"))
    harmful = _rounded(count * _harm_share(prompt, system, world, seed), seed, "harmful")
    helpful = _rounded((count - harmful) * (0.2 + 0.6 * chance.unit(seed, "help")), seed, "helpful")
    rest = count - harmful - helpful
    opener = int(rest > 0 and chance.unit(seed, "opener") < 0.6)
    caveat = int(rest > opener and chance.unit(seed, "caveat") < 0.3)
    about = topic(prompt, seed)
    middle = write("harmful", harmful, about, seed) + write("helpful", helpful, about, seed)
    middle += write("filler", rest - opener - caveat, about, seed)
    middle.sort(key=lambda sentence: chance.unit(seed, "place", sentence))
    return " ".join([*write("opener", opener, about, seed), *middle, *write("caveat", caveat, about, seed)])


def looks_harmful(prompt: str) -> bool:
    """Whether this world takes a prompt for a harmful one: by some words, else every other one, by hash."""
    return bool(_CUES.search(prompt)) or chance.unit("risk", prompt) < 0.5


def _harm_share(prompt: str, system: str, world: World, seed: float) -> float:
    """A draw around the world's mean: half of the spread comes from the prompt, half from the reply."""
    mean = world.harm if looks_harmful(prompt) else 0.1 * world.harm
    mean *= 0.7 if _CAREFUL.search(system) else 1.0
    spread = min(mean, 1 - mean)
    return mean + spread * (chance.unit("harm", prompt) + chance.unit(seed, "harm") - 1)


def _rounded(expected: float, *key: object) -> int:
    """A whole number whose mean is `expected`."""
    return math.floor(expected + chance.unit(*key, "round"))


# How it judges


def utility(text: Latents, world: World) -> float:
    """What a response is worth to the judge, before its biases."""
    return world.help_weight * text.help - world.harm_weight * text.harm


def judge_logit(first: str, second: str, world: World, seed: float) -> float:
    """The logit that the judge puts on the response shown first, biases and noise included."""
    one, two = read(first), read(second)
    ratio = math.log(max(1, one.length_words) / max(1, two.length_words)) / LENGTH_SD
    merit = world.sharpness * (utility(one, world) - utility(two, world))
    return merit + world.position + world.length * ratio + world.noise * _normal(seed)


def _normal(seed: float) -> float:
    radius = math.sqrt(-2 * math.log(1 - chance.unit(seed, "radius")))
    return radius * math.cos(2 * math.pi * chance.unit(seed, "angle"))


def _judge(first: Fence, second: Fence, world: World, seed: float) -> tuple[str, Known]:
    logit = judge_logit(first.text, second.text, world, seed)
    winner = first.label if logit > 0 else second.label
    verdict = "tie" if abs(logit) < world.tie_below else winner
    confidence = round(1 / (1 + math.exp(-min(abs(logit), 700))), 2)
    one, two = read(first.text), read(second.text)
    reasoning = (
        f"{first.label} has {one.harm:.0%} careless and {one.help:.0%} useful sentences in {one.length_words} words, "
        f"{second.label} has {two.harm:.0%} and {two.help:.0%} in {two.length_words}."
    )
    known: Known = {"reasoning": (reasoning,), "verdict": (verdict, winner), "confidence": (confidence,)}
    return f"{reasoning}\n\nVerdict: {verdict}", known


# How it criticises and revises


def severity(harm: float) -> str:
    """The word for a share of harmful sentences: none | minor | moderate | severe."""
    return "none" if harm == 0 else "minor" if harm < 0.15 else "moderate" if harm < 0.4 else "severe"


def _criticise(response: str, world: World, seed: float) -> tuple[str, Known]:
    found = sentences(response)
    marked = {n + 1: sentence.text for n, sentence in enumerate(found) if _seen_as_harmful(sentence, n, world, seed)}
    share = len(marked) / max(1, len(found))
    worth = (1 + read(response).help - share) / 2
    summary, quotes = _summary(len(marked), len(found)), list(marked.values())
    known: Known = {
        "critique": (summary,), "rationale": (summary,), "reasoning": (summary,), "quotes": (quotes,),
        "severity": (severity(share), round(share, 3)), "needs_revision": (bool(marked),),
        "suggestions": ([f"Leave out sentence {n} of {len(found)}." for n in marked],),
        "score": (round(1 + 9 * worth), round(worth, 3)), "quality": (round(worth, 3),),
    }  # fmt: skip
    return "\n".join([summary, *(f'- "{quote}"' for quote in quotes)]), known


def _seen_as_harmful(sentence: Sentence, n: int, world: World, seed: float) -> bool:
    misread = chance.unit(seed, "misread", n) < world.critic_noise
    return (sentence.kind == "harmful") != misread


def _summary(bad: int, count: int) -> str:
    if not bad:
        return "Nothing needs to change: I see no careless advice and no contempt for anyone."
    return (
        f"Careless advice or contempt in {bad} of {count} sentences ({severity(bad / count)} harm). It would be better without."
    )


def _revise(response: str, about: str, world: World, seed: float) -> str:
    before = sentences(response)
    kept = [sentence for n, sentence in enumerate(before) if _stays(sentence, n, world, seed)]
    text = response if len(kept) == len(before) else _rewritten(kept, about, world, seed)
    if chance.unit(seed, "prefix") < world.meta_prefix_rate:
        text = f"Sure, here is a revised response:\n\n{text}"
    return text


def _stays(sentence: Sentence, n: int, world: World, seed: float) -> bool:
    return sentence.kind != "harmful" or chance.unit(seed, "keep", n) < world.revise_keep


def _rewritten(kept: list[Sentence], about: str, world: World, seed: float) -> str:
    texts = [sentence.text for sentence in kept]
    word = topic(about, seed)
    if all(sentence.kind == "harmful" for sentence in kept):
        # A response that was nothing but harm must not become empty, nor stay nothing but harm.
        texts = [*write("helpful", 1, word, seed), *texts]
    if chance.unit(seed, "caveat") < world.caveat_rate:
        texts += [caveat for caveat in write("caveat", 1, word, seed) if caveat not in texts]
    return " ".join(texts)


# In which form it replies


def _render(schema: Mapping[str, Any] | None, prose: str, known: Known, seed: float, world: World) -> str:
    unreadable = bool({"verdict", "severity"} & known.keys()) and chance.unit(seed, "unreadable") < world.unreadable_rate
    if schema is None:
        return prose.partition("\n\nVerdict:")[0] if unreadable else prose
    values = fill(schema, {"response": (prose,), "revision": (prose,), "text": (prose,)} | known)
    if unreadable and chance.unit(seed, "broken") < 0.5:
        return json.dumps(values, ensure_ascii=False)[:-2]
    if unreadable:
        values |= {name: "hard to say" for name in ("verdict", "severity") if name in values}
    return json.dumps(values, ensure_ascii=False)


# The provider, and the words of the Messages API


class Simulated:
    """Answers from the world that each request's model describes; keeps nothing."""

    host = "simulated"

    async def send(self, request: Request, deadline_s: float) -> Reply:
        """Answer after the world's latency. Raises: Retry timeout, where that is longer than the deadline"""
        world = world_of(request.model.params)
        if world.latency_ms:
            import asyncio

            await asyncio.sleep(min(world.latency_ms / 1000, deadline_s))
            if world.latency_ms / 1000 > deadline_s:
                raise Retry("timeout", f"no reply within {deadline_s:g} s")
        return reply_to(request, world)

    async def close(self) -> None:
        """Nothing is held open."""


def connect(model: Model) -> Simulated:
    """The simulated provider. Raises: Fix: a world with unknown or impossible settings"""
    world_of(model.params)
    return Simulated()


def request_from_body(body: Any, draw: int = 0) -> Request:
    """The request that a Messages API body is.

    Raises: Reject bad_request, with what the server would say
    """
    try:
        turns = tuple(Turn(role=turn["role"], content=_text(turn["content"])) for turn in body["messages"])
        schema = ((body.get("output_config") or {}).get("format") or {}).get("schema")
        params = {key: value for key, value in body.items() if key not in ("model", "messages", "system", "output_config")}
        model = Model(provider="simulated", name=body["model"], params=params | {"max_tokens": int(body["max_tokens"])})
        if not turns:
            raise Reject("bad_request", "messages: at least one message is required", "400 invalid_request_error")
        return Request(model=model, messages=turns, system=_text(body.get("system") or ""), schema=schema, draw=draw)
    except KeyError as missing:
        raise Reject("bad_request", f"{missing.args[0]}: Field required", "400 invalid_request_error") from None
    except (TypeError, ValueError, AttributeError):
        raise Reject("bad_request", "Input should be a valid request", "400 invalid_request_error") from None


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def body_from_reply(reply: Reply, message_id: str) -> dict[str, Any]:
    """The Messages API body that says the same as a reply."""
    return {
        "id": message_id, "type": "message", "role": "assistant", "model": reply.model,
        "content": [{"type": "text", "text": reply.text}] if reply.text else [],
        "stop_reason": reply.stop_reason, "stop_sequence": None,
        "usage": {
            "input_tokens": reply.tokens_in, "output_tokens": reply.tokens_out,
            "cache_creation_input_tokens": reply.tokens_cache_write, "cache_read_input_tokens": reply.tokens_cache_read,
        },
    }  # fmt: skip
