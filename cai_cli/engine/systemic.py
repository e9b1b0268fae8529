"""Tell a bad row from a bad run: when the provider refuses many rows for one cause, the rows are not at fault."""

from __future__ import annotations

from collections import Counter, deque

from cai_cli.errors import Fatal, Reject

IN_A_ROW = 20
WINDOW = 100


class Systemic:
    """Watches first attempts; the same refusal 20 times in a row, or for more than half of the last 100, stops the run."""

    def __init__(self) -> None:
        self._recent: deque[str] = deque(maxlen=WINDOW)
        self._counts: Counter[str] = Counter()
        self._last, self._streak = "", 0
        self._cause = ""  # the signature that stopped the run

    def answered(self) -> None:
        self._note("")

    def refused(self, reject: Reject, first: bool = True) -> None:
        """Count a refusal, if it answers a `first` attempt. Raises: Fatal, with the server's words, once it is systemic

        A refusal without a signature is the row's own affair, and breaks a streak as an answer does.
        """
        signature = reject.signature
        if first:
            self._note(signature)
        if signature and (signature == self._cause or (first and self._is_systemic(signature))):
            self._cause = signature
            raise Fatal(f"the provider refuses request after request: {signature}: {reject.detail}",
                        "no row was rejected for it; mend the cause, then run the same command again")  # fmt: skip

    def _is_systemic(self, signature: str) -> bool:
        return self._streak >= IN_A_ROW or self._counts[signature] > WINDOW // 2

    def _note(self, signature: str) -> None:
        if len(self._recent) == WINDOW:
            self._counts[self._recent[0]] -= 1
        self._recent.append(signature)
        self._counts[signature] += 1
        self._streak = self._streak + 1 if signature == self._last else 1
        self._last = signature
