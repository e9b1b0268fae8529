"""Replies as the ledger keeps them: small, whole, and readable for ever."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.engine import reply_bytes
from cai_cli.errors import Exit, Fatal
from cai_cli.flow import Reply

PROSE = "A loaf needs flour, water, salt and time; most of the work is waiting, and nothing of it is hard. "

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=2000)
replies = st.builds(
    Reply, text=texts, stop_reason=st.sampled_from(["end_turn", "max_tokens", "refusal"]), model=texts,
    tokens_in=st.integers(0, 10**9), tokens_cache_read=st.integers(0, 10**6), estimated=st.booleans(),
    probabilities=st.none() | st.dictionaries(st.sampled_from("AB"), st.floats(0, 1)),
)  # fmt: skip

PINNED = (
    "783fd5d05f1583bbcf5121273f314d212f3535a558212d27bfb44847a11ca81d48013d56a2909897a2003430d55a2137bfb844213f4da1"
    "242355a13cbf285b21b318a81268685eba0e58595e7e490690035293590292cd482c4ad153180e3610138bd098cf458d4d2344fc81a3d3"
    "0c3de6a8139f00a158a103"
)


@given(replies)
def test_what_is_packed_comes_back(reply: Reply) -> None:
    assert reply_bytes.unpack(reply_bytes.pack(reply)) == reply


@given(replies)
def test_a_row_of_an_older_ledger_is_read(reply: Reply) -> None:
    assert reply_bytes.unpack(orjson.dumps(reply)) == reply


def test_prose_takes_less_than_half_and_a_word_stays_as_it_is() -> None:
    long, short = Reply(text=PROSE * 15), Reply(text="A")
    assert len(reply_bytes.pack(long)) < len(orjson.dumps(long)) / 2
    assert reply_bytes.pack(short) == orjson.dumps(short)


def test_bytes_written_today_are_read_in_every_release() -> None:
    """If this fails, ledgers that exist can be read no more: the dictionary is part of the format."""
    written = bytes.fromhex(PINNED)
    assert reply_bytes.unpack(written) == Reply(text=PROSE * 3, model="claude-m", tokens_in=21, tokens_out=60)


@pytest.mark.parametrize(
    "harm", [lambda data: data[:-3], lambda data: data[:40] + b"\x00\xff" + data[42:], lambda data: b"?" + data]
)
def test_damage_is_told_and_never_taken_for_a_reply(harm: object) -> None:
    data = reply_bytes.pack(Reply(text=PROSE * 5))
    with pytest.raises(Fatal, match="damaged") as caught:
        reply_bytes.unpack(harm(data))  # type: ignore[operator]
    assert caught.value.code == Exit.DISK
