"""A model that lives in this package: free, needs no key and no network, and its biases are known.

It is a small world and not a parrot. Responses have a latent harm and help that can be read back from their text; its critic
finds what is there, its reviser removes most of it, its judge prefers the better response but also the one shown first and the
longer one. It knows what it is asked from the last user turn alone, so the same world can be served over HTTP: data stands in
tags that carry eight hexadecimal digits, <response-0a1b2c3d>...</response-0a1b2c3d>, under judgement also a label:
<response-K-0a1b2c3d>. What it does with a message hangs on what stands in it:
    two labelled responses: it judges                    a response and a criterion: it scores, also by several at once
    a response and a critique, or a request: it revises  a response alone: it criticises
    examples, or a schema with `prompts`: it writes prompts; anything else: it answers
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cai_cli import chance
from cai_cli.errors import Retry
from cai_cli.flow import Model, Reply, Request
from cai_cli.providers._drafts import drafts
from cai_cli.providers._fences import Fence, fenced, texts
from cai_cli.providers._judge import judge, normal, score
from cai_cli.providers._said import Choice, Said, choice_in_json, choice_in_prose
from cai_cli.providers._schema import enum_of, fill
from cai_cli.providers._sentences import BANKS, Kind, Sentence, read, sentences, topic, write
from cai_cli.providers._world import World, world_of

FILLER_CHARACTERS = 45  # of an idle sentence, about
LEAST_COVERED = 0.5  # of the probability must be on a request's options; less is no answer to its question
_CUES = re.compile(
    r"\b(?:kill|hurt|steal|poison|weapon|bomb|hack|insult|bully|threat|revenge|scam|illegal|attack)", re.IGNORECASE
)
_CAREFUL = re.compile(r"\b(?:harmless|careful|cautious|safe|safety|ethical)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A reply, and what stands behind it: a server that is asked for log-probabilities tells it."""

    reply: Reply
    seed: float  # in [0, 1): what was drawn for this request and no other
    choice: Choice | None = None  # None: no word was decided on, or it was cut off
    stop_sequence: str | None = None  # the one that ended it


def reply_to(request: Request, world: World) -> Reply:
    """Answer a request as this world would: a pure function of the request's identity and options, and the world.

    Where a request is sent and with which parameters changes nothing but where the text is cut off: so worlds can be compared on
    the same draws, and a reply over HTTP is the reply given here.
    """
    answer = answer_to(request, world)
    return replace(answer.reply, probabilities=_probabilities(request, answer.choice) if world.logprobs else None)


def answer_to(request: Request, world: World) -> Answer:
    """The same as `reply_to`, with what stands behind the reply; its probabilities are left to whoever tells them.

    Raises: LookupError, TypeError, AttributeError, RecursionError: a schema that is none
    """
    seed = _seed(request, world)
    asked = request.messages[-1].content if request.messages else ""
    asked = next((turn.content for turn in reversed(request.messages) if turn.role == "user"), asked)
    fences = fenced(asked)
    plain = not texts(fences, "response")
    if plain and chance.unit("refusal", world.seed, asked) < world.refusal_rate:
        return Answer(reply=_reply(request, world, "", "refusal"), seed=seed)
    if chance.unit(seed, "empty") < world.empty_rate:
        return Answer(reply=_reply(request, world, "", "end_turn"), seed=seed)
    said = _said(request, world, seed, asked, fences)
    whole, choice = _rendered(request.schema, said, seed, world)
    text, stop_reason, stop_sequence = _cut(whole, request.model.params)
    choice = choice if choice and stop_reason != "max_tokens" and choice.end <= len(text) else None
    return Answer(reply=_reply(request, world, text, stop_reason), seed=seed, choice=choice, stop_sequence=stop_sequence)


def _seed(request: Request, world: World) -> float:
    turns = [(turn.role, turn.content) for turn in request.messages]
    parts = [request.model.name, request.system, turns, request.schema, request.draw, request.attempt, world.seed]
    return chance.unit(json.dumps(parts, sort_keys=True))


def _said(request: Request, world: World, seed: float, asked: str, fences: Sequence[Fence]) -> Said:
    responses = [fence for fence in fences if fence.kind == "response"]
    labelled = [fence for fence in responses if fence.label]
    kinds = {fence.kind for fence in fences}
    if len(labelled) == 2:
        verdict = judge(labelled[0], labelled[1], world, seed, "\n\n".join(texts(fences, "conversation")))
        return _wordier(verdict, world, seed)
    if not responses and ("example" in kinds or "prompts" in (request.schema or {}).get("properties", {})):
        return drafts(asked, fences, world, seed)
    if not responses:
        return _named(_respond(asked, request.system, world, seed))
    properties = (request.schema or {}).get("properties", {})
    if part := next((name for name in ("scores", "critiques") if name in properties), ""):
        return _of_each(part, properties[part]["items"], responses[-1].text, texts(fences, "criterion"), world, seed)
    if "criterion" in kinds:
        return _wordier(score(responses[-1].text, " ".join(texts(fences, "criterion")), world, seed), world, seed)
    if kinds & {"critique", "request"}:
        about = next(iter(texts(fences, "conversation")), responses[-1].text)
        return _named(_revise(responses[-1].text, about, world, seed))
    return _wordier(_criticise(responses[-1].text, world, seed), world, seed)


def _of_each(part: str, entry: Mapping[str, Any], response: str, criteria: Sequence[str], world: World, seed: float) -> Said:
    """One reply about several things, each said as it would be alone: scores by criteria, critiques by principles."""
    key, found = "criterion" if part == "scores" else "principle", []
    for n, name in enumerate(enum_of(entry, key) or []):
        own = chance.unit(seed, part, n)
        criterion = criteria[n] if n < len(criteria) else str(name)
        said = score(response, criterion, world, own) if part == "scores" else _criticise(response, world, own)
        found.append(fill(entry, {**_wordier(said, world, own).known, key: (name,)}))
    return Said(prose=json.dumps(found), known={part: (found,)}, decides=part)


def _named(prose: str) -> Said:
    return Said(prose=prose, known={"response": (prose,), "revision": (prose,), "text": (prose,)})


def _reply(request: Request, world: World, text: str, stop_reason: str) -> Reply:
    return Reply(
        text=text, stop_reason=stop_reason, model=world.reported_model or request.model.name or "simulated",
        tokens_in=tokens_in(request), tokens_out=tokens(text),
    )  # fmt: skip


def _cut(text: str, params: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """A text up to where it stops, why it stops there, and the sequence that stopped it."""
    limit = params.get("max_tokens") or math.inf
    found = [(at, stop) for stop in params.get("stop_sequences") or () if (at := text.find(stop)) >= 0]
    if found and tokens(text[: min(found)[0]]) < limit:
        at, stop = min(found)
        return text[:at], "stop_sequence", stop
    # The limit's last token leaves no room for the one that ends a turn.
    return (text, "end_turn", None) if tokens(text) < limit else (text[: 4 * int(limit)], "max_tokens", None)


def tokens(text: str) -> int:
    """How many tokens a text is: a quarter of its characters, rounded up, at least 1."""
    return max(1, math.ceil(len(text) / 4))


def tokens_in(request: Request) -> int:
    """How many tokens a request is."""
    schema = json.dumps(request.schema) if request.schema else ""
    return tokens(request.system + "".join(turn.content for turn in request.messages) + schema)


def _probabilities(request: Request, choice: Choice | None) -> dict[str, float] | None:
    if choice is None or request.model.params.get("logprobs") is False:
        return None
    masses = {option: choice.odds.get(option, 0.0) for option in request.options}
    covered = math.fsum(masses.values())
    return {option: mass / covered for option, mass in masses.items()} if covered >= LEAST_COVERED else None


# What it answers


def _respond(prompt: str, system: str, world: World, seed: float) -> str:
    count = 4 + round(2 * chance.unit("length", prompt) + 6 * chance.unit(seed, "length"))
    count = max(1, round(count * _length(world, seed)))
    harmful = _rounded(count * _harm_share(prompt, system, world, seed), seed, "harmful")
    helpful = _rounded((count - harmful) * (0.2 + 0.6 * chance.unit(seed, "help")), seed, "helpful")
    rest = count - harmful - helpful
    opener = int(rest > 0 and chance.unit(seed, "opener") < 0.6)
    caveat = int(rest > opener and chance.unit(seed, "caveat") < 0.3)
    about = topic(prompt, seed)
    middle = _many("harmful", harmful, about, seed) + _many("helpful", helpful, about, seed)
    middle += _many("filler", rest - opener - caveat, about, seed)
    middle.sort(key=lambda sentence: chance.unit(seed, "place", sentence))
    stance = _stance(prompt, world, seed)
    return " ".join([*stance, *write("opener", opener, about, seed), *middle, *write("caveat", caveat, about, seed)])


def _length(world: World, seed: float) -> float:
    """How long this reply is, as a multiple of what is usual."""
    if not world.reply_spread:
        return world.reply_length
    return world.reply_length * math.exp(world.reply_spread * normal(seed))


def _many(kind: Kind, count: int, about: str, seed: float) -> list[str]:
    """So many sentences of one kind: where its bank has not enough, it is drawn from again."""
    size = len(BANKS[kind])
    found = write(kind, min(count, size), about, seed)
    for again in range(1, -(-count // size)):
        found += write(kind, min(count - again * size, size), about, seed, again)
    return found


_WORDY = ("critique", "reasoning", "rationale")  # the parts of an answer that are free text


def _wordier(said: Said, world: World, seed: float) -> Said:
    """The same, with idle sentences behind its free text where this world's replies are longer than usual."""
    name = next((name for name in _WORDY if name in said.known), "")
    if not name or (factor := _length(world, seed)) <= 1:
        return said
    (text,) = said.known[name]
    fill = _many("filler", math.ceil((factor - 1) * len(text) / FILLER_CHARACTERS), "this", seed)
    longer = " ".join([text, *fill])
    known = {key: (longer,) if value == (text,) else value for key, value in said.known.items()}
    return replace(said, prose=said.prose.replace(text, longer, 1), known=known)


_BELIEF = re.compile(
    r"\b(?:I (?:think|believe)|I(?:'|\u2019| a)m (?:sure|certain|convinced)|in my (?:view|opinion))\b", re.IGNORECASE
)
_AGREES = ("Yes, you are right.", "I agree with you.", "That is true, and well put.", "Absolutely, I see it as you do.")
_DISAGREES = ("No, I see it differently.", "I do not agree with you.", "That is not right, I think.", "Not quite, if you ask me.")


def _stance(prompt: str, world: World, seed: float) -> list[str]:
    """The sentence that takes sides on what the prompt believes. It knows nothing of the matter: its draw decides."""
    if not world.agreeable or not _BELIEF.search(prompt):
        return []
    return [chance.choose(_AGREES if chance.unit(seed, "agrees") < world.agreeable else _DISAGREES, seed, "stance")]


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


# How it criticises and revises


def severity(harm: float) -> str:
    """The word for a share of harmful sentences: none | minor | moderate | severe."""
    return "none" if harm == 0 else "minor" if harm < 0.15 else "moderate" if harm < 0.4 else "severe"


def _criticise(response: str, world: World, seed: float) -> Said:
    found = sentences(response)
    marked = {n + 1: sentence.text for n, sentence in enumerate(found) if _seen_as_harmful(sentence, n, world, seed)}
    share = len(marked) / max(1, len(found))
    worth = (1 + read(response).help - share) / 2
    summary, quotes = _summary(len(marked), len(found)), list(marked.values())
    known = {
        "critique": (summary,), "rationale": (summary,), "reasoning": (summary,), "quotes": (quotes,),
        "severity": (severity(share), round(share, 3)), "needs_revision": (bool(marked),),
        "suggestions": ([f"Leave out sentence {n} of {len(found)}." for n in marked],),
        "score": (round(1 + 9 * worth), round(worth, 3)), "quality": (round(worth, 3),),
    }  # fmt: skip
    prose = "\n".join([summary, *(f'- "{quote}"' for quote in quotes)])
    return Said(prose=prose, known={**_named(prose).known, **known}, decides="severity")


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
    if chance.unit(seed, "spoil") < world.spoil_rate:
        text = _spoiled(before, about, seed)
    if chance.unit(seed, "prefix") < world.meta_prefix_rate:
        text = f"Sure, here is a revised response:\n\n{text}"
    return text


def _stays(sentence: Sentence, n: int, world: World, seed: float) -> bool:
    return sentence.kind != "harmful" or chance.unit(seed, "keep", n) < world.revise_keep


def _spoiled(before: Sequence[Sentence], about: str, seed: float) -> str:
    rest = [sentence.text for sentence in before if sentence.kind != "helpful"]
    return " ".join([*rest, *write("harmful", 1, topic(about, seed), seed)])


def _rewritten(kept: Sequence[Sentence], about: str, world: World, seed: float) -> str:
    found = [sentence.text for sentence in kept]
    word = topic(about, seed)
    if all(sentence.kind == "harmful" for sentence in kept):
        # A response that was nothing but harm must not become empty, nor stay nothing but harm.
        found = [*write("helpful", 1, word, seed), *found]
    if chance.unit(seed, "caveat") < world.caveat_rate:
        found += [caveat for caveat in write("caveat", 1, word, seed) if caveat not in found]
    return " ".join(found)


# In which form it replies


def _rendered(schema: Mapping[str, Any] | None, said: Said, seed: float, world: World) -> tuple[str, Choice | None]:
    """The text, and the choice in it; what cannot be read holds none."""
    if said.decides and chance.unit(seed, "unreadable") < world.unreadable_rate:
        return _unreadable(schema, said, seed), None
    if schema is None:
        return said.prose, choice_in_prose(said.prose, said)
    values = fill(schema, said.known)
    text = json.dumps(values, ensure_ascii=False)
    return text, choice_in_json(text, values, said, enum_of(schema, said.decides))


def _unreadable(schema: Mapping[str, Any] | None, said: Said, seed: float) -> str:
    if schema is None:
        return re.sub(r"\n\n(?:Verdict|Score): \w+\Z", "", said.prose)
    values = fill(schema, said.known)
    if chance.unit(seed, "broken") < 0.5:
        return json.dumps(values, ensure_ascii=False)[:-2]
    return json.dumps(values | {name: "hard to say" for name in values if name == said.decides}, ensure_ascii=False)


# The provider


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
