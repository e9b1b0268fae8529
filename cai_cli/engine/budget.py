"""Dollars: reserved before a request goes, settled from its reply. The cap holds over restarts and over processes."""

from __future__ import annotations

import asyncio
import json

from cai_cli.engine.ledger import Ledger
from cai_cli.errors import Fatal, Fix
from cai_cli.flow import Model, Reply, Request
from cai_cli.prices import Price, price_of

CHUNK = 32  # a lease is this many requests' worth, so that the ledger is not asked for every one
FRAME_TOKENS, TURN_TOKENS = 64, 16  # around a request and around each turn


class Budget:
    """The money of one run under one cap (`cap_usd` None: counted, not capped)."""

    def __init__(self, ledger: Ledger, cap_usd: float | None) -> None:
        self.ledger, self.cap_usd = ledger, cap_usd
        self.dollars = 0.0  # settled by this run
        self._free = 0.0  # leased, not reserved
        self._reserved = 0  # requests that hold a reservation
        self._leasing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._prices: dict[tuple[object, ...], Price | None] = {}

    def price(self, model: Model) -> Price | None:
        """Dollars per token of a model; None where nobody knows. Raises: Fix when there is a cap and no price"""
        key = (model.provider, model.name, *sorted((model.price or {}).items()))
        if key not in self._prices:
            self._prices[key] = price_of(model)
        if self._prices[key] is None and self.cap_usd is not None:
            raise Fix(f"no price is known for the model '{model.name}', so budget_usd cannot be kept",
                      "set model.price: {input: ..., output: ...} (dollars per million tokens)")  # fmt: skip
        return self._prices[key]

    def most(self, request: Request) -> float:
        """The most that a request can cost, in dollars; 0 where no price is known."""
        if (price := self.price(request.model)) is None:
            return 0.0
        tokens_in, tokens_out = _most_tokens_in(request), request.model.max_tokens
        return max(price.dollars(tokens_in, tokens_out), price.dollars(0, tokens_out, cache_write=tokens_in))

    def cost(self, model: Model, reply: Reply) -> float:
        """What a reply cost, in dollars; 0 where no price is known."""
        if (price := self.price(model)) is None:
            return 0.0
        return price.dollars(reply.tokens_in, reply.tokens_out, reply.tokens_cache_read, reply.tokens_cache_write)

    async def reserve(self, dollars: float) -> None:
        """Set `dollars` aside. Waits for requests in flight to settle before giving up. Raises: Fatal: the budget is spent"""
        if self.cap_usd is None or dollars <= 0:
            return
        while not self._take(dollars):
            self._changed.clear()
            async with self._leasing:
                if self._take(dollars):
                    return
                await self._lease(dollars)

    def _take(self, dollars: float) -> bool:
        if self._free + 1e-12 < dollars:
            return False
        self._free -= dollars
        self._reserved += 1
        return True

    async def _lease(self, dollars: float) -> None:
        assert self.cap_usd is not None
        granted = await self.ledger.lease(max(dollars - self._free, dollars * CHUNK), self.cap_usd)
        self._free += granted
        if granted > 0 or self._free + 1e-12 >= dollars:
            return
        if self._reserved == 0:
            raise Fatal(f"the budget of ${self.cap_usd:.2f} is spent",
                        "raise limits.budget_usd (or --budget-usd), then run the same command again")  # fmt: skip
        await self._changed.wait()

    def settle(self, reserved: float, dollars: float) -> None:
        """Give back what a request did not cost."""
        self.dollars += dollars
        if self.cap_usd is None or reserved <= 0:
            return
        self._free += reserved - dollars
        self._reserved -= 1
        self._changed.set()


def _most_tokens_in(request: Request) -> int:
    """A tokenizer that works on bytes makes at most one token of each; it is usually four times less."""
    texts = [request.system, *(turn.content for turn in request.messages), json.dumps(request.schema) if request.schema else ""]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return size + TURN_TOKENS * len(request.messages) + FRAME_TOKENS
