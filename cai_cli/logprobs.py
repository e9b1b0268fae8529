"""What a server's log-probabilities say of the options that an answer chose from. Pure: tokens in, probabilities out."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence

Alternative = tuple[str, float]  # a token's text and its log-probability, at most 0
Token = tuple[str, float, Sequence[Alternative]]  # the token that was sampled, and the likeliest ones at its place
Span = tuple[int, int]  # characters, the end not included

LEAST_COVERED = 0.5  # of the probability at the verdict's place
_DRESS = " \t\r\n\"'*`_:([{"  # what stands around a verdict in the same token
_JSON_PARTS = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|(-?\d[\d.eE+-]*)', re.DOTALL)
_DECIDES = ("verdict", "score")  # the keys that our schemas ask for the answer under
_OBJECT = re.compile(r"^[ \t]*\{", re.MULTILINE)


def option_probabilities(tokens: Sequence[Token], options: Sequence[str]) -> dict[str, float] | None:
    """The probability of each option at the place where the answer's verdict stands, normalised over the options.

    Takes: an answer's tokens in order; `options`, distinct words such as ("A", "B", "tie") or ("1", ..., "10").
    The verdict is what the answer's JSON object has under `verdict` or `score`, else its last string that is an option, where
    none is, the last such number; in prose, the only option in the last line, also where an object was quoted before it. An
    option's mass is that of the alternatives that spell it, without quotes, blanks and asterisks around it, or that begin it and
    no other option. Where what was sampled leaves several open ("1" of "1" and "10"),
    the next token's alternatives decide, each times the probability of what stands before it. An alternative that was not sampled
    and leaves several open goes, where the options are numbers, to the one nearest to the mean of all others ("1" beside an 8 is
    a 10 begun, beside a 2 a 1: judges' scores have one peak); where they are words, to none.
    Gives: probabilities in [0, 1] that sum to 1, 0 for an option that was not among the alternatives; None where there is no such
    place, or where less than half of the probability there is on any option: then the model was about to write something else,
    or its tokens cut the options where we cannot see it, and what is left over is not its belief.
    Source: Lee et al. 2023, arXiv 2309.00267, section 3 (the softmax over the options' tokens)
    """
    text = "".join(token[0] for token in tokens)
    span = _verdict_span(text, options)
    if span is None:
        return None
    masses, unclear = dict.fromkeys(options, 0.0), []
    for meant, mass in _masses(tokens, span, options):
        if len(meant) == 1:
            masses[meant[0]] += mass
        else:
            unclear.append((meant, mass))
    _share_out(unclear, masses)
    covered = math.fsum(masses.values())
    return {option: mass / covered for option, mass in masses.items()} if covered >= LEAST_COVERED else None


# Where the verdict stands.


def _verdict_span(text: str, options: Sequence[str]) -> Span | None:
    span, last = _object_span(text), _in_last_line(text, options)
    return last if span is None or (last and last[0] >= span[1]) else _in_object(text, span, options)


def _object_span(text: str) -> Span | None:
    """The last JSON object that begins a line, is whole and stands in no other."""
    span: Span | None = None
    for opening in _OBJECT.finditer(text):
        start = opening.end() - 1
        if span is None or start >= span[1]:
            with contextlib.suppress(ValueError, RecursionError):
                span = start, json.JSONDecoder().raw_decode(text, start)[1]
    return span


def _in_object(text: str, span: Span, options: Sequence[str]) -> Span | None:
    # Strings first: {"verdict": "2", "confidence": 1} has its verdict in the string.
    strings, numbers, decided = list[Span](), list[Span](), list[Span]()
    key = ""
    for part in _JSON_PARTS.finditer(text, *span):
        if part[2]:
            key = part[1]
            continue
        of, group = (strings, 1) if part[1] in options else (numbers, 3)
        if part[group] in options:
            of.append(part.span(group))
            decided += [part.span(group)] * (key in _DECIDES)
    found = decided or strings or numbers
    return found[-1] if found else None


def _in_last_line(text: str, options: Sequence[str]) -> Span | None:
    body = text.rstrip()
    start = body.rfind("\n") + 1
    words = "|".join(re.escape(option) for option in sorted(options, key=len, reverse=True))
    found = list(re.finditer(rf"(?<!\w)(?:{words})(?!\w)", body[start:])) if words else []
    if len({match[0] for match in found}) != 1:
        return None
    return start + found[-1].start(), start + found[-1].end()


# What the alternatives there spell.


def _share_out(unclear: Iterable[tuple[Sequence[str], float]], masses: dict[str, float]) -> None:
    """Give each mass whose option is unclear to the number that it most likely begins."""
    total = math.fsum(masses.values())
    if not total or not all(option.isdecimal() for option in masses):
        return
    mean = math.fsum(int(option) * mass for option, mass in masses.items()) / total
    for meant, mass in unclear:
        masses[min(meant, key=lambda option: abs(int(option) - mean))] += mass


def _masses(tokens: Sequence[Token], span: Span, options: Sequence[str]) -> Iterator[tuple[list[str], float]]:
    """What each alternative along the tokens that were sampled may mean, and its probability."""
    begun, reached = "", 1.0
    for (sampled, probability), *others in _places(tokens, span, options):
        spelled = {begun + text for text, _ in others} | {begun + sampled}
        for text, mass in others:
            if meant := _meant(begun, text, options, spelled):
                yield meant, reached * mass
        begun, reached = begun + sampled, reached * probability
        still_open = _open(begun, options)
        if len(still_open) <= 1:
            yield from (([option], reached) for option in still_open)
            return
    if begun in options:  # the answer ended there
        yield [begun], reached


def _places(tokens: Sequence[Token], span: Span, options: Sequence[str]) -> Iterator[list[Alternative]]:
    """From the verdict's first token on: the alternatives with their probabilities, the sampled one first; at the first place
    without what stands before the verdict."""
    at = 0
    for text, logprob, others in tokens:
        if at + len(text) > span[0]:
            rest = list(others)
            known = next((n for n, other in enumerate(rest) if other[0] == text), None)
            sampled = (text, logprob) if known is None else rest.pop(known)
            before = text[: span[0] - at] if at <= span[0] else None
            yield [(_undressed(one, before, options), _mass(value)) for one, value in (sampled, *rest)]
        at += len(text)


def _mass(logprob: float) -> float:
    return math.exp(min(0.0, logprob)) if logprob == logprob else 0.0


def _undressed(text: str, before: str | None, options: Sequence[str]) -> str:
    """A token that may begin a verdict, without what stands before that; None: the verdict began in an earlier one."""
    if before is None:
        return text
    rest = text.removeprefix(before)
    return rest if any(option and rest.startswith(option) for option in options) else rest.lstrip(_DRESS)


def _open(text: str, options: Sequence[str]) -> list[str]:
    """The options that a text may still become, or has become."""
    ended = [option for option in options if text.startswith(option) and re.match(r"\W", text[len(option) :])]
    longest = sorted(ended, key=len)[-1:]
    return longest + [option for option in options if option.startswith(text)]


def _meant(begun: str, text: str, options: Sequence[str], alternatives: set[str]) -> list[str]:
    """The options that `text` after `begun`, an alternative that was not sampled, may stand for.

    Where "10" is an alternative too, it is one token, and "1" is then the whole of "1". An empty one is the answer's end.
    """
    whole = begun + text
    found = _open(whole, options) if whole else []
    if whole in found and (not text or all(other in alternatives for other in found)):
        return [whole]
    return found
