"""Dollars: reserved before a request goes, settled from its reply. The cap holds over restarts and over processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable

from cai_cli.caching import LONG
from cai_cli.engine.ledger import Ledger
from cai_cli.errors import Fatal, Fix
from cai_cli.flow import Model, Reply, Request
from cai_cli.prices import Price, near_name, price_of
from cai_cli.remembered import Remembered

FRAME_TOKENS, TURN_TOKENS = 64, 16  # around a request and around each turn
AHEAD, MANY = 4, 8  # for so many in flight the money of one more is set aside, if they are many: else each waits for the disk


class Spent(Fatal):
    """The cap does not cover the next request; the same command would stop there again."""


class Budget:
    """The money of one run under one cap (`cap_usd` None: counted, not capped)."""

    def __init__(self, ledger: Ledger, cap_usd: float | None) -> None:
        self.ledger, self.cap_usd = ledger, cap_usd
        self.dollars = 0.0  # settled by this run
        self._reserved = 0  # requests that hold a reservation
        self._held = 0.0  # dollars of these reservations
        self._free = 0.0  # dollars set aside on disk that no request holds
        self._topping: asyncio.Task[None] | None = None
        self._tight = False  # the cap left no room for more than what requests hold
        self._changed: asyncio.Future[None] | None = None  # resolved, and replaced, whenever one gives its reservation back
        self.price = Remembered(self._price)

    def _price(self, model: Model) -> Price | None:
        """Dollars per token of a model; None where nobody knows. Raises: Fix when there is a cap and no price"""
        price = price_of(model)
        if price is None and self.cap_usd is not None:
            meant = f"did you mean '{near}'? if not, " if (near := near_name(model)) else ""
            raise Fix(f"no price is known for the model '{model.name}', so budget_usd cannot be kept",
                      f"{meant}set model.price: {{input: ..., output: ...}} (dollars per million tokens)")  # fmt: skip
        return price

    def to_reserve(self, request: Request) -> float:
        """Dollars that must be set aside before a request goes: the most that it can cost; 0 where there is no cap."""
        return 0.0 if self.cap_usd is None else self.most(request)

    def most(self, request: Request) -> float:
        """The most that a request can cost, in dollars; 0 where no price is known."""
        if (price := self.price(request.model)) is None:
            return 0.0
        tokens_in, tokens_out = _most_tokens_in(request), request.model.max_tokens
        long = tokens_in if request.model.caching == LONG else 0
        written = price.dollars(0, tokens_out, cache_write=tokens_in - long, cache_write_1h=long)
        return max(price.dollars(tokens_in, tokens_out), written)

    def cost(self, model: Model, reply: Reply) -> float:
        """What a reply cost, in dollars; 0 where no price is known."""
        if (price := self.price(model)) is None:
            return 0.0
        long = reply.tokens_cache_write_1h
        return price.dollars(
            reply.tokens_in, reply.tokens_out, reply.tokens_cache_read, reply.tokens_cache_write - long, cache_write_1h=long
        )

    async def reserve(self, dollars: float) -> None:
        """Set `dollars` aside, on disk. Waits for requests in flight to settle before giving up. Raises: Spent"""
        while (changed := await self.take(dollars)) is not None:
            await changed

    async def take(self, dollars: float) -> Awaitable[None] | None:
        """Set `dollars` aside, on disk, if the cap allows it now. Gives: None, or what to wait for before the next try

        What is set aside is, at any moment, what is in flight and at most a quarter more, and that is all that a kill can cost.
        Raises: Spent: nothing is in flight that could give something back
        """
        if self.cap_usd is None or dollars <= 0:
            return None
        changed = self._changed = self._changed or asyncio.get_running_loop().create_future()
        if self._free >= dollars:
            self._free -= dollars
        elif not await self.ledger.lease(dollars, self.cap_usd):
            if await self._drop():
                return await self.take(dollars)
            if not changed.done() and self._reserved == 0:
                raise self._spent(dollars)
            return asyncio.shield(changed)
        self._held, self._reserved = self._held + dollars, self._reserved + 1
        if self._topping is None and self._free < 0.9 * self._ahead:
            self._topping = asyncio.create_task(self._top_up(self.cap_usd))
        return None

    async def _top_up(self, cap_usd: float) -> None:
        """Set aside what the next few requests will need, so that they do not wait for the disk with a slot in hand."""
        more = self._ahead - self._free
        try:
            if await self.ledger.lease(more, cap_usd):
                self._give_back(more, more)
            else:
                self._tight = True
        except Fatal:
            self._tight = True  # the disk: whoever writes next tells it, and stops the run
        finally:
            self._topping = None

    async def _drop(self) -> bool:
        """From now on set nothing aside ahead. Gives: whether something was, and is free again"""
        self._tight = True
        topping, had = self._topping, self._free > 0
        if topping is not None:
            await asyncio.wait((topping,))
        self._give_back(0.0, 0.0)
        return had or topping is not None

    @property
    def _ahead(self) -> float:
        """Dollars to set aside beyond what requests hold; none where few are in flight."""
        return 0.0 if self._tight or self._reserved < MANY else self._held / AHEAD

    def _give_back(self, dollars: float, unspent: float) -> None:
        """Nobody holds these `dollars` now. Of the `unspent` a little is kept for the next request, the rest is free again."""
        kept = min(self._free + unspent, self._ahead)
        back, self._free = self._free + dollars - kept, kept
        if back > 0:
            self.ledger.unlease(back)

    def _spent(self, dollars: float) -> Spent:
        assert self.cap_usd is not None
        gone = sum(self.ledger.spent())
        what = f"the budget of {_exact(self.cap_usd)} does not cover the next request"
        return Spent(f"{what}: {_exact(gone)} is spent or set aside, it may cost {_exact(dollars)}",
                     "raise limits.budget_usd (or --budget-usd, or CAI_BUDGET_USD)")  # fmt: skip

    def settle(self, reserved: float, dollars: float) -> None:
        """A request ended: it cost `dollars`, which the ledger has, and what was set aside for it is free again."""
        self.dollars += dollars
        if self.cap_usd is None or reserved <= 0:
            return
        self._held, self._reserved = self._held - reserved, self._reserved - 1
        self._give_back(reserved, max(0.0, reserved - dollars))
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    def close(self) -> None:
        """A run ends: what no request holds is free again."""
        if self._topping is not None:
            self._topping.cancel()
        self._tight = True
        self._give_back(0.0, 0.0)


def _exact(dollars: float) -> str:
    """With the digits that tell a price of one request from nothing: $5.00, $0.0021."""
    cents = f"{dollars:.2f}"
    return f"${cents}" if abs(float(cents) - dollars) < 5e-7 else f"${dollars:.4f}" if dollars >= 5e-4 else f"${dollars:.2g}"


def _most_tokens_in(request: Request) -> int:
    """A tokenizer that works on bytes makes at most one token of each; it is usually four times less."""
    size = _bytes_of(request.system) + sum(_bytes_of(turn.content) for turn in request.messages)
    if request.schema:
        size += len(json.dumps(request.schema))
    return size + TURN_TOKENS * len(request.messages) + FRAME_TOKENS


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
