"""Transcripts in the form of the Constitutional AI paper's few-shot files, cut into the exemplars that stages are shown.

Source: the files published with Bai et al. 2022, arXiv 2212.08073
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

# Where the prompt's own cannot be told from it.
CRITERION = "Which response is the right answer to what is asked in the last turn?"

# A turn begins a paragraph, so that "Critique:" inside one is text.
_MARK = re.compile(r"(?:\A|\n[^\S\n]*\n)\s*(Human|Assistant|CritiqueRequest|Critique|RevisionRequest|Revision):")
_CRITIQUED = re.compile(r"\n[^\S\n]*\n\s*CritiqueRequest:")
_OPTIONS = re.compile(r"\s*\bOptions?\s*:\s*")
_OPTION = re.compile(r"^\s*\(([A-Z])\)\s*", re.MULTILINE)
_LETTER = re.compile(r"\s*\(?([A-Z])\)?[.:]?\s*")


class Broken(Exception):
    """A transcript that is not in the form; its text says how."""


class Round(NamedTuple):
    """One round of critique and revision. The last two are empty where a transcript ends before them."""

    conversation: list[dict[str, str]]  # {role, content}, up to the user turn that is answered
    response: str
    request: str
    critique: str
    revision_request: str
    revision: str

    def to_critique(self) -> dict[str, Any]:
        """As an exemplar of the stage critique."""
        return {"conversation": self.conversation, "request": self.request, "response": self.response, "critique": self.critique}

    def to_revise(self) -> dict[str, Any]:
        """As an exemplar of the stage revise."""
        return self.to_critique() | {"request": self.revision_request, "revision": self.revision}


class _Turn(NamedTuple):
    mark: str
    text: str


def is_one(text: str) -> bool:
    """Whether a text is a transcript with a critique in it, and not a plain sentence."""
    return _CRITIQUED.search(text) is not None


def rounds(text: str) -> list[Round]:
    """Every round of critique and revision in a transcript, in its order; at least one.

    The response of a round is the revision of the one before it. A Human turn behind a Revision begins another conversation, as
    where several are joined; one with nothing behind it is dropped.
    Raises: Broken
    """
    turns = _turns(text)
    if turns and turns[-1].mark == "Human":
        turns.pop()  # the opening of the exemplar that would come next
    found: list[Round] = []
    while turns:
        conversation, response, turns = _conversation(turns)
        while turns and turns[0].mark != "Human":
            one, turns = _round(turns, conversation, response)
            found.append(one)
            response = one.revision
    if not found:
        raise Broken("there is no critique in it")
    return found


def _turns(text: str) -> list[_Turn]:
    pieces = _MARK.split(text)
    if pieces[0].strip():
        raise Broken(f"it begins with none of Human:, Assistant: and so on, but with '{pieces[0].strip()[:30]}'")
    return [_Turn(mark, piece.strip()) for mark, piece in zip(pieces[1::2], pieces[2::2], strict=True)]


def _conversation(turns: Sequence[_Turn]) -> tuple[list[dict[str, str]], str, list[_Turn]]:
    """The turns up to the last of the user, the response to it, and what stands behind."""
    spoken = list(itertools.takewhile(lambda turn: turn.mark in ("Human", "Assistant"), turns))
    if len(spoken) < 2 or [turn.mark for turn in spoken[-2:]] != ["Human", "Assistant"]:
        raise Broken("a critique must follow a Human turn and an Assistant turn")
    if not all(turn.text for turn in spoken):
        raise Broken("a turn of the conversation is empty")
    return _messages(spoken[:-1]), spoken[-1].text, list(turns[len(spoken) :])


def _messages(turns: Sequence[_Turn]) -> list[dict[str, str]]:
    return [{"role": "user" if turn.mark == "Human" else "assistant", "content": turn.text} for turn in turns]


def _round(turns: Sequence[_Turn], conversation: list[dict[str, str]], response: str) -> tuple[Round, list[_Turn]]:
    """One round, and what stands behind it."""
    if not response:
        raise Broken("a second critique stands where a revision was to come")
    critique = _two(turns[:2], "CritiqueRequest", "Critique")
    if len(turns) < 3 or turns[2].mark != "RevisionRequest":
        return Round(conversation, response, *critique, "", ""), list(turns[2:])
    revision = _two(turns[2:4], "RevisionRequest", "Revision")
    return Round(conversation, response, *critique, *revision), list(turns[4:])


def _two(turns: Sequence[_Turn], request: str, answer: str) -> tuple[str, str]:
    if [turn.mark for turn in turns] != [request, answer]:
        raise Broken(f"there must stand {request} and {answer}, not {' and '.join(turn.mark for turn in turns)}")
    if not all(turn.text for turn in turns):
        raise Broken(f"{request} or {answer} is empty")
    return turns[0].text, turns[1].text


def comparisons(entry: Any) -> list[dict[str, Any]]:
    """Worked comparisons of {prompt, corrects, incorrects}: the first right answer against the first wrong one, and so on.

    What stands in the prompt before its options is taken apart where paragraphs part it: a frame that ends in a colon, the
    conversation, and, as the last paragraph behind the user's own, the question. Where they do not, the prompt is one user turn,
    and the criterion is CRITERION. Answers that are only a letter stand for the option of that letter.
    Raises: Broken
    """
    prompt, corrects, incorrects = _checked(entry)
    asked, options = _cut_options(prompt)
    conversation, criterion = _asked(asked)
    answers = [[_answer(text, options) for text in side] for side in (corrects, incorrects)]
    return [
        {"conversation": conversation, "criterion": criterion, "better": better, "worse": worse, "reasoning": ""}
        for better, worse in zip(*answers, strict=False)
    ]


def unpaired(entry: Any) -> int:
    """How many answers of an entry that `comparisons` took are in none, because the other side has fewer."""
    return abs(len(entry["corrects"]) - len(entry["incorrects"]))


def _checked(entry: Any) -> tuple[str, list[str], list[str]]:
    prompt, *sides = (entry.get(key) for key in ("prompt", "corrects", "incorrects"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise Broken("prompt holds no text")
    for name, side in zip(("corrects", "incorrects"), sides, strict=True):
        if not isinstance(side, list) or not side or not all(isinstance(text, str) and text.strip() for text in side):
            raise Broken(f"{name} must be a list of texts, with at least one")
    return prompt, sides[0], sides[1]


def _cut_options(prompt: str) -> tuple[str, dict[str, str]]:
    """A prompt before its last "Options:", and the options behind it by letter."""
    *_, last = [None, *_OPTIONS.finditer(prompt)]
    if last is None:
        return prompt.strip(), {}
    pieces = _OPTION.split(_MARK.split(prompt[last.end() :])[0])
    options = dict(zip(pieces[1::2], (piece.strip() for piece in pieces[2::2]), strict=True))
    return prompt[: last.start()].strip(), {letter: text for letter, text in options.items() if text}


def _answer(text: str, options: dict[str, str]) -> str:
    letter = _LETTER.fullmatch(text)
    if letter and options:
        if letter[1] not in options:
            raise Broken(f"the answer {text.strip()} is none of the options {', '.join(options)}")
        return options[letter[1]]
    if not (bare := _OPTION.sub("", text.strip(), count=1)):
        raise Broken(f"the answer {text.strip()} is only a letter, and the prompt has no options")
    return bare


def _asked(text: str) -> tuple[list[dict[str, str]], str]:
    """A conversation, and the question about it."""
    turns = list(_unframed(text))
    if turns and turns[-1].mark == "Human":
        *own, question = re.split(r"\n[^\S\n]*\n", turns[-1].text)
        whole = [*turns[:-1], _Turn("Human", "\n\n".join(own).strip())]
        if own and all(turn.text and turn.mark in ("Human", "Assistant") for turn in whole):
            return _messages(whole), question.strip()
    return [{"role": "user", "content": text}], CRITERION


def _unframed(text: str) -> Iterator[_Turn]:
    """The turns of a prompt without the sentence that announces them ("... the following conversation:")."""
    pieces = _MARK.split(text)
    turns = [_Turn(mark, piece.strip()) for mark, piece in zip(pieces[1::2], pieces[2::2], strict=True)]
    if pieces[0].strip() and not pieces[0].strip().endswith(":"):
        return
    framed = len(turns) > 1 and turns[0].mark == turns[1].mark == "Human" and turns[0].text.endswith(":")
    yield from turns[1:] if framed else turns
