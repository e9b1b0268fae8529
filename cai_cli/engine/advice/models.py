"""Advice on who is asked: families, prices, retirements, room for the reply."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cai_cli.engine.advice.look import Advice, Look, is_paid
from cai_cli.flow import Model
from cai_cli.prices import near_name, price_of, retires
from cai_cli.validation import KeyPath

SOON_DAYS = 60
# Tokens of a reply, estimated: a hundred words, a quote and two suggestions, with JSON around them; fifty words and a verdict.
CRITIQUE_TOKENS, VERDICT_TOKENS, SCORE_TOKENS, DRAFT_TOKENS, THINKING_TOKENS = 300, 200, 60, 40, 2048

_FAMILIES = {
    "Claude": r"claude", "GPT": r"(^|[/.-])(gpt|chatgpt|o[1-9])([-.:]|$)", "Gemini": r"gemini|gemma", "Llama": r"llama|vicuna",
    "Mistral": r"[mc]istral|mixtral|codestral|devstral|magistral", "Qwen": r"qwen|qwq", "DeepSeek": r"deepseek",
    "Phi": r"(^|[/-])phi-?\d", "Command": r"command-|c4ai|(^|/)aya", "Grok": r"grok", "GLM": r"(^|[/-])(chat)?glm",
    "Kimi": r"kimi|moonshot", "OLMo": r"olmo|tulu", "Granite": r"granite", "Nova": r"(^|[/.-])nova-",
}  # fmt: skip
# Current Claude models answer 400 to sampling parameters, under every version of the API.
_NO_SAMPLING = re.compile(r"claude-(opus-4-[7-9]|(opus|sonnet|haiku)-[5-9]|fable|mythos)")


def families(model: Model) -> frozenset[str]:
    """The families that a model's name speaks of: a distillation has two; of an unknown name, the name itself."""
    name = model.name.lower()
    found = frozenset(family for family, pattern in _FAMILIES.items() if re.search(pattern, name))
    return found or frozenset({f"{model.provider} {name}"})


def advice(look: Look) -> Iterator[Advice]:
    yield from _judges(look)
    yield from _revision_judge(look)
    for model in look.models:
        yield from _of_model(look, model)
    yield from _room(look)
    if look.paid and look.config.limits.budget_usd is None:
        why, write = (
            "a run may spend without a cap",
            "write budget_usd: 5, dollars over all runs; a run stops before it spends more",
        )
        yield Advice(path=("limits", "budget_usd"), what="there is no budget_usd", why=why, write=write)


def _judges(look: Look) -> Iterator[Advice]:
    """The simulated model does not know its own texts, so it cannot favour them."""
    writing, judging = look.steps.get("generate"), look.steps.get("label-pairs")
    if (
        writing is None
        or judging is None
        or not all(map(is_paid, judging.models))
        or look.settings("label-pairs").pairs == "given"
    ):
        return
    writers, judges = _names(writing.models), _names(judging.models)
    own = frozenset.union(*map(families, writing.models))
    write = "add a labeler of another family: labelers: [{name: main}, {name: other, model: {provider: ..., name: ...}}]"
    if judges == writers:
        what = "the only judge is the model that wrote the responses"
        why = "models favour their own texts, and only gold labels show how much"
    elif all(families(model) & own for model in judging.models):
        what = f"every judge ({', '.join(sorted(judges))}) is of the family of the model that wrote the responses"
        why = "models favour texts like their own, and only gold labels show how much"
    else:
        return
    yield Advice(path=("label_pairs", "labelers"), what=what, why=why, write=write)


def _revision_judge(look: Look) -> Iterator[Advice]:
    step = look.steps.get("revise")
    if step is None or getattr(step.settings, "accept", "") != "if_preferred":
        return
    if len(_names(step.models)) == 1 and all(map(is_paid, step.models)):
        what, why = "the model that writes a revision also judges it", "models favour their own texts"
        yield Advice(path=("revise", "labeler"), what=what, why=why, write="write labeler: {name: judge, model: {name: ...}}")


def _names(models: Iterable[Model]) -> set[str]:
    return {model.name for model in models}


def _of_model(look: Look, model: Model) -> Iterator[Advice]:
    path = _path_of(look, model, "name")
    day = retires(model)
    if day is not None and (day - look.today).days < SOON_DAYS:
        is_gone = day <= look.today
        what = f"{model.name} {'was' if is_gone else 'is'} offered until {day.isoformat()}"
        why = "requests fail" if is_gone else "a refresh after that needs another model, whose rows are new ones"
        yield Advice(path=path, what=what, why=why, write="name its successor; cai doctor CONFIG asks the server")
    if price_of(model) is None:
        capped = look.config.limits.budget_usd is not None
        why = "limits.budget_usd cannot be kept, so a run stops at once" if capped else "what a run costs cannot be told"
        write = "write price: {input: ..., output: ...}, dollars per million tokens; 0 for a server of your own"
        meant = near_name(model)
        write = f"did you mean '{meant}'? if not, {write}" if meant else write
        yield Advice(path=(*path[:-1], "price"), what=f"no price is known for '{model.name}'", why=why, write=write)
    sampled = [key for key in ("temperature", "top_p", "top_k") if key in model.params]
    if sampled and model.provider in ("anthropic", "bedrock", "vertex") and _NO_SAMPLING.search(model.name):
        why = "the API answers 400 to every request"
        write = "take it out: samples of one prompt differ without"
        yield Advice(path=_path_of(look, model, sampled[0]), what=f"{model.name} takes no {sampled[0]}", why=why, write=write)


def _path_of(look: Look, model: Model, key: str) -> KeyPath:
    """Where a model's key is set: with the first stage that asks it."""
    for name, step in look.steps.items():
        listed = getattr(step.settings, "labelers", ())
        for n, labeler in enumerate(listed):
            if labeler.model is not None and n < len(step.models) and step.models[n] == model:
                return (name.replace("-", "_"), "labelers", n, "model", key)
        if model in step.models:
            return look.model_path(name, key)
    return ("model", key)


def _room(look: Look) -> Iterator[Advice]:
    """Replies that max_tokens leaves too little room for. Thinking counts towards it."""
    for name, (model, wanted, of_what) in _wanted(look):
        thinks = bool(model.params.get("thinking")) and model.params["thinking"].get("type") != "disabled"
        path = look.model_path(name, "max_tokens")
        if thinks and model.max_tokens < THINKING_TOKENS:
            what, why = (
                f"{model.max_tokens} for a model that thinks first",
                "thinking counts towards it, and the reply is cut off",
            )
            yield Advice(path=path, what=what, why=why, write=f"write max_tokens: {2 * THINKING_TOKENS} in {name}")
        elif model.max_tokens < wanted and not model.retry_truncated:
            what, why = (
                f"{model.max_tokens} for {of_what}",
                f"by our estimate some {wanted} are needed, and what is cut off is lost",
            )
            yield Advice(path=path, what=what, why=why, write=f"write max_tokens: {_round_up(2 * wanted)} for {name}")


def _wanted(look: Look) -> Iterator[tuple[str, tuple[Model, int, str]]]:
    """Per stage: who answers, and the tokens of a usual reply."""
    for name, step in look.steps.items():
        asks_json = any(template.reply == "json" for template in step.templates)
        if not step.models:
            continue
        model = step.models[0]
        if name == "critique" and asks_json:
            count = _at_once(look)
            several = f"{count} critiques" if count > 1 else "a critique"
            yield name, (model, CRITIQUE_TOKENS * count, f"{several} with quotes and suggestions as JSON")
        elif name == "score" and step.settings.together:  # type: ignore[attr-defined]
            criteria = len(step.settings.criteria)  # type: ignore[attr-defined]
            yield name, (model, SCORE_TOKENS * criteria, f"{criteria} scores with their reasons as JSON")
        elif name == "label-pairs" and asks_json and step.settings.reasoning:  # type: ignore[attr-defined]
            yield name, (model, VERDICT_TOKENS, "a verdict with its reasoning as JSON")
        elif name == "expand":
            drafts: int = step.settings.per_ask  # type: ignore[attr-defined]
            yield name, (model, DRAFT_TOKENS * drafts, f"{drafts} prompts")
        elif name == "revise" and "generate" in look.steps:
            longest = max(one.max_tokens for one in look.steps["generate"].models)
            yield name, (model, longest, f"revisions of responses of up to {longest} tokens")


def _at_once(look: Look) -> int:
    """How many principles one critique is to speak of."""
    settings, constitution = look.settings("critique"), look.steps["critique"].constitution
    if not settings.together or constitution is None:
        return 1
    active = sum(one.weight > 0 for one in constitution.principles)
    return max(1, active if settings.pick == "all" else min(settings.principles, active))


def _round_up(tokens: int) -> int:
    """To a number that people write: 512, 1024, 2048."""
    return 1 << max(9, (tokens - 1).bit_length())
