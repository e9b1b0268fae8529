"""A small language of filters over rows: `severity > .5 and not refused`.

    names        columns of the rows and what is made of them (see engine/row_values.py); meta.COLUMN for a kept input column
    comparisons  < <= > >= = != in (a, b) ~ TEXT (or contains TEXT: the text, whatever its case)
    joined by    and or not ( )
    len(NAME)    characters of a text, entries of a list

A name by itself holds where it is true, given, not empty. A comparison with a number that nobody knows (null) holds nowhere, and
neither does its opposite. One with a list (principle, flags) holds where an entry does; != where none is equal.
Nothing of an expression is evaluated as Python.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from cai_cli.engine.row_values import VALUES, names, names_of
from cai_cli.errors import Fix

Row = Mapping[str, Any]
Truth = bool | None  # None: nobody knows
Test = Callable[[Row], Truth]
Value = Callable[[Row], Any]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?=[\s<>=!~(),'\"]|$))|(?P<text>\"[^\"]*\"|'[^']*')"
    r"|(?P<sign><=|>=|==|!=|[<>=~(),])|(?P<word>[^\s<>=!~(),'\"]+))"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "==": operator.eq,
    "!=": operator.ne, "~": lambda text, part: part.lower() in text.lower(),
}  # fmt: skip
_WORDS = ("and", "or", "not", "in", "contains", "len", "true", "false")
_DEPTH = 50  # brackets and `not` in one another
META = "meta."


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number | text | sign | word | end
    text: str
    at: int  # place in the expression, from 0


@dataclass(frozen=True, slots=True)
class _Operand:
    """One side of a comparison. `kind`: number | text | flag | texts | any; `name`: empty where it is a value."""

    kind: str
    of: Value
    name: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """A test of rows, and the names that it uses."""

    matches: Callable[[Row], bool]
    names: frozenset[str]


def parse(expression: str) -> Filter:
    """Read an expression. Raises: Fix: it cannot be read, or uses a name that is none"""
    return _Parser(expression).whole()


def equals(name: str, value: str) -> Filter:
    """Rows whose text of that name is just this."""
    of = names()[name].of
    return Filter(lambda row: bool(of(row) == value), frozenset([name]))


def all_of(filters: Sequence[Filter]) -> Filter:
    """Rows that match each of these."""
    used = frozenset[str]().union(*(one.names for one in filters))
    return Filter(lambda row: all(one.matches(row) for one in filters), used)


def check_names(filters: Filter, stage: str, shape: type[Any]) -> None:
    """See that the rows of a stage have what a filter asks about. Raises: Fix"""
    for name in sorted(filters.names):
        if name not in names_of(shape) and not name.startswith(META):
            raise Fix(f"rows of {stage} have no {name}", f"they have: {', '.join(names_of(shape))}")


def answers(filters: Filter, shape: type[Any]) -> bool:
    """Whether rows of this shape have all names that a filter asks about."""
    return all(name in names_of(shape) or name.startswith(META) for name in filters.names)


def _tokens(expression: str) -> list[_Token]:
    found, at = list[_Token](), 0
    end = len(expression.rstrip())
    while at < end:
        match = _TOKEN.match(expression, at)
        if match is None:
            raise _wrong(expression, "a quote that does not end, or a sign that means nothing", at)
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
    return [*found, _Token("end", "", end)]


def _wrong(expression: str, what: str, at: int, hint: str = "") -> Fix:
    where = f" at '{expression[at : at + 20].strip()}'" if expression[at:].strip() else " at its end"
    return Fix(f"--where {expression!r}: {what}{where}", hint or "such as: --where 'severity > .5 and not refused'")


class _Parser:
    """Recursive descent: or, and, not, comparison, operand."""

    def __init__(self, expression: str) -> None:
        self.expression, self.names = expression, set[str]()
        self._tokens, self._at, self._depth = _tokens(expression), 0, 0

    def whole(self) -> Filter:
        test = self._either()
        if self._now.kind != "end":
            raise self._wrong("`and` or `or` was expected")
        return Filter(lambda row: test(row) is True, frozenset(self.names))

    @property
    def _now(self) -> _Token:
        return self._tokens[self._at]

    def _wrong(self, what: str, hint: str = "", at: int | None = None) -> Fix:
        return _wrong(self.expression, what, self._now.at if at is None else at, hint)

    def _take(self, *texts: str) -> str:
        """The token's text, if it is one of these, which is then passed; else empty."""
        now = self._now
        found = now.text.lower() if now.kind == "word" else now.text
        if now.kind not in ("word", "sign") or found not in texts:
            return ""
        self._at += 1
        return found

    def _either(self) -> Test:
        tests = [self._both()]
        while self._take("or"):
            tests.append(self._both())
        return _any(tests)

    def _both(self) -> Test:
        tests = [self._negated()]
        while self._take("and"):
            tests.append(self._negated())
        return _all(tests)

    def _negated(self) -> Test:
        self._depth += 1
        if self._depth > _DEPTH:
            raise self._wrong(f"more than {_DEPTH} brackets in one another")
        try:
            if self._take("not"):
                return _not(self._negated())
            if self._take("("):
                test = self._either()
                self._close()
                return test
            return self._comparison()
        finally:
            self._depth -= 1

    def _close(self) -> None:
        if not self._take(")"):
            raise self._wrong("a ) was expected")

    def _comparison(self) -> Test:
        left = self._operand()
        at = self._at
        opposite = bool(self._take("not"))
        if self._take("in"):
            test = self._among(left)
        elif sign := self._take("contains", *_COMPARE):
            test = self._compared(left, "~" if sign == "contains" else sign, self._operand(beside=left))
        else:
            self._at = at
            if not left.name:
                raise self._wrong("a comparison was expected")
            return lambda row: bool(left.of(row)) if left.kind != "number" else left.of(row) is not None
        return _not(test) if opposite else test

    def _among(self, left: _Operand) -> Test:
        if not self._take("("):
            raise self._wrong("a list was expected, as in: kind in (harmful, harmless)")
        tests = [self._compared(left, "=", self._operand(beside=left))]
        while self._take(","):
            tests.append(self._compared(left, "=", self._operand(beside=left)))
        self._close()
        return _any(tests)

    def _operand(self, beside: _Operand | None = None) -> _Operand:
        """A value or a name; `beside` a text, a word that is no name is a text too."""
        token, self._at = self._now, self._at + 1
        if token.kind == "number" and beside is not None and beside.kind in ("text", "texts"):
            return _literal(token.text)  # ids may be numbers
        if token.kind == "number":
            number = float(token.text)
            return _Operand("number", lambda _: number)
        if token.kind == "text":
            return _literal(token.text[1:-1])
        if token.kind == "word":
            return self._word(token, beside)
        self._at -= 1
        raise self._wrong("a name or a value was expected")

    def _word(self, token: _Token, beside: _Operand | None) -> _Operand:
        word = token.text
        if word.lower() in ("true", "false"):
            holds = word.lower() == "true"
            return _Operand("flag", lambda _: holds)
        if word.lower() == "len" and self._take("("):
            inner = self._operand()
            self._close()
            if not inner.name or inner.kind not in ("text", "texts"):
                raise self._wrong("len() is of a text or a list", at=token.at)
            return _Operand("number", lambda row: len(inner.of(row)), inner.name)
        is_name = word in names() or (word.startswith(META) and word != META)
        if beside is not None and beside.kind in ("text", "texts", "any") and word.lower() not in _WORDS:
            # `stopped_by = rounds` means the word; of names only other columns of text are compared with a text
            is_name = is_name and not word.startswith(META) and names()[word].kind == "text"
            if not is_name:
                return _literal(word)
        if is_name:
            self.names.add(word)
            return _named(word)
        close = difflib.get_close_matches(word, names(), 1)
        raise self._wrong(
            f"there is no name '{word}'", f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names())}", token.at
        )

    def _compared(self, left: _Operand, sign: str, right: _Operand) -> Test:
        kinds = {_plain(side.kind) for side in (left, right)} - {"any"}
        if len(kinds) > 1:
            raise self._wrong(_unlike(left, right))
        if sign == "~" and not kinds <= {"text"}:
            raise self._wrong("~ looks for a text in a text")
        if sign in ("<", "<=", ">", ">=") and not kinds <= {"number"}:
            raise self._wrong(f"{sign} compares numbers")
        self._check_value(left, right)
        return _comparing(sign, left, right)

    def _check_value(self, left: _Operand, right: _Operand) -> None:
        """Near misses of words that can only be one of a few."""
        known = VALUES.get(left.name)
        if known is None or right.name or (given := right.of({})) in known:
            return
        close = difflib.get_close_matches(str(given), known, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"it is one of: {', '.join(filter(None, known))}"
        raise Fix(f"--where {self.expression!r}: {left.name} is never '{given}'", hint)


def _plain(kind: str) -> str:
    return "text" if kind == "texts" else kind


def _unlike(left: _Operand, right: _Operand) -> str:
    words = {"number": "a number", "text": "a text", "texts": "a list of texts", "flag": "true or false"}
    return f"{left.name or 'a value'} is {words[left.kind]} and is compared with {words[right.kind]}"


def _literal(text: str) -> _Operand:
    return _Operand("text", lambda _: text)


def _named(name: str) -> _Operand:
    if name.startswith(META):
        key = name.removeprefix(META)
        return _Operand("any", lambda row: _kept(row, key), name)
    return _Operand(names()[name].kind, names()[name].of, name)


def _kept(row: Row, key: str) -> Any:
    """A kept input column, null where the row has none."""
    meta = row.get("meta") or "{}"
    return orjson.loads(meta).get(key)


# Truth of three values: what nobody knows is neither true nor false.


def _comparing(sign: str, left: _Operand, right: _Operand) -> Test:
    compare = _COMPARE[sign]

    def test(row: Row) -> Truth:
        a, b = left.of(row), right.of(row)
        if a is None or b is None:
            return None
        pairs = [(x, y) for x in _several(a) for y in _several(b)]
        if not all(_alike(sign, x, y) for x, y in pairs):
            return None  # a kept column may hold anything
        return all(compare(x, y) for x, y in pairs) if sign == "!=" else any(compare(x, y) for x, y in pairs)

    return test


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, tuple | list) else (value,)


def _alike(sign: str, x: Any, y: Any) -> bool:
    if isinstance(x, str) or sign == "~":
        return isinstance(x, str) and isinstance(y, str)
    return isinstance(x, int | float) and isinstance(y, int | float)


def _any(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    def test(row: Row) -> Truth:
        found = [one(row) for one in tests]
        return True if True in found else None if None in found else False

    return test


def _all(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    def test(row: Row) -> Truth:
        found = [one(row) for one in tests]
        return False if False in found else None if None in found else True

    return test


def _not(inner: Test) -> Test:
    def test(row: Row) -> Truth:
        found = inner(row)
        return None if found is None else not found

    return test
