"""Codes that an operator was shown: whoever sends one first, in private, is linked by it.

Rule 1: a code is in memory alone, by its hash. It is void once it was used, and after ten minutes
of a clock that nobody sets back.
Rule 2: few may be tried, of one account and of all together since the last one was drawn. What is
no code that is open leaves nothing behind but its number.
"""

from typing import Final, NamedTuple

from muster.bridge.base import Pressed, Said
from muster.fleet.chat import CODE_MS, code_form, code_hash, code_of
from muster.node.counter import DECLARED, Counts
from muster.task.instruction import Now

DECLARED[__name__] = {
    "chat-codes-wrong": "Somebody sent a code over a chat bridge that links nothing.",
}

CODES_OPEN_MAX: Final = 8
# So often a wrong code is looked at: of one account, and of all together while one is open.
TRIES_MAX: Final = 5
TRIES_OF_ALL_MAX: Final = 50


class Code(NamedTuple):
    """An order to link an account, for whoever shows its code."""

    service: str
    days: int
    statement: str
    operator: str
    hash: str
    # By the clock that began with the machine.
    until_boot_ms: int


class Codes:
    """See the rules at the top of this file."""

    def __init__(self, counters: Counts) -> None:
        self._counters = counters
        self._open: dict[str, Code] = {}
        self._tries: dict[str, int] = {}

    def add(self, drawn: bytes, service: str, order: tuple[int, str, str], now: Now) -> str:
        """A fresh code for this order: its days, its statement and its operator."""
        self._prune(now)
        while len(self._open) >= CODES_OPEN_MAX:
            self._open.pop(next(iter(self._open)))
        self._tries.clear()
        code = code_of(drawn)
        hash = code_hash(code)
        self._open[hash] = Code(service, *order, hash, now.boot_ms + CODE_MS)
        return code

    def shown(self, service: str, heard: Said | Pressed, now: Now) -> Code | None:
        """The order whose code this is, in private and while it is open."""
        self._prune(now)
        word = code_form(heard.text) if isinstance(heard, Said) and heard.private else ""
        who = f"{service}\n{heard.workspace}\n{heard.account}"
        if not (word and self._open) or self._tries.get(who, 0) >= TRIES_MAX:
            return None
        if sum(self._tries.values()) >= TRIES_OF_ALL_MAX:
            return None
        code = self._open.get(code_hash(word))
        if code is None or code.service != service:
            self._tries[who] = self._tries.get(who, 0) + 1
            self._counters["chat-codes-wrong"] += 1
            return None
        return code

    def use(self, code: Code) -> None:
        """It links nobody else."""
        self._open.pop(code.hash, None)

    def _prune(self, now: Now) -> None:
        self._open = {k: c for k, c in self._open.items() if now.boot_ms <= c.until_boot_ms}
