"""Dollars: reserved before a request goes, settled from its reply. The cap holds over restarts and over processes."""

from __future__ import annotations

import asyncio
import json

from cai_cli.engine.ledger import Ledger
from cai_cli.errors import Fatal, Fix
from cai_cli.flow import Model, Reply, Request
from cai_cli.prices import Price, near_name, price_of

FRAME_TOKENS, TURN_TOKENS = 64, 16  # around a request and around each turn


class Spent(Fatal):
    """The cap does not cover the next request; the same command would stop there again."""


class Budget:
    """The money of one run under one cap (`cap_usd` None: counted, not capped)."""

    def __init__(self, ledger: Ledger, cap_usd: float | None) -> None:
        self.ledger, self.cap_usd = ledger, cap_usd
        self.dollars = 0.0  # settled by this run
        self._reserved = 0  # requests that hold a reservation
        self._changed: asyncio.Future[None] | None = None  # resolved, and replaced, whenever one gives its reservation back
        self._prices: dict[tuple[object, ...], Price | None] = {}

    def price(self, model: Model) -> Price | None:
        """Dollars per token of a model; None where nobody knows. Raises: Fix when there is a cap and no price"""
        key = (model.provider, model.name, *sorted((model.price or {}).items()))
        if key not in self._prices:
            self._prices[key] = price_of(model)
        if self._prices[key] is None and self.cap_usd is not None:
            meant = f"did you mean '{near}'? if not, " if (near := near_name(model)) else ""
            raise Fix(f"no price is known for the model '{model.name}', so budget_usd cannot be kept",
                      f"{meant}set model.price: {{input: ..., output: ...}} (dollars per million tokens)")  # fmt: skip
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
        """Set `dollars` aside, on disk. Waits for requests in flight to settle before giving up. Raises: Spent

        One write of the ledger's groups for each request: what is set aside is then, at any moment, just what is in flight,
        and that is all that a kill can cost.
        """
        if self.cap_usd is None or dollars <= 0:
            return
        while not await self._lease(dollars):
            pass

    async def _lease(self, dollars: float) -> bool:
        """Try once; where the cap does not allow it now, wait until something is given back."""
        assert self.cap_usd is not None
        changed = self._changed = self._changed or asyncio.get_running_loop().create_future()
        if await self.ledger.lease(dollars, self.cap_usd):
            self._reserved += 1
            return True
        if not changed.done() and self._reserved == 0:
            raise self._spent(dollars)
        await asyncio.shield(changed)
        return False

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
        self._reserved -= 1
        self.ledger.unlease(reserved)
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None


def _exact(dollars: float) -> str:
    """With the digits that tell a price of one request from nothing: $5.00, $0.0021."""
    cents = f"{dollars:.2f}"
    return f"${cents}" if abs(float(cents) - dollars) < 5e-7 else f"${dollars:.4f}" if dollars >= 5e-4 else f"${dollars:.2g}"


def _most_tokens_in(request: Request) -> int:
    """A tokenizer that works on bytes makes at most one token of each; it is usually four times less."""
    texts = [request.system, *(turn.content for turn in request.messages), json.dumps(request.schema) if request.schema else ""]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return size + TURN_TOKENS * len(request.messages) + FRAME_TOKENS
