"""How many bytes go between two machines that seven links join, beside the bytes of one link.

Cores in one process, and every frame between the two counted: what was written is the same, so is
who says what when, and no other load changes it. What a channel says by itself, its encryption and
its sign of life, comes on top for each link, and is not counted.
"""

from typing import Any, Final

from tests.node.cores import Cores

from bench.figure import Figure
from muster.node import event as ev

LINKS: Final = 7
_SETTLE_MS: Final = 120_000
_REST_MS: Final = 1_800_000
# What a person writes.
_TEXT: Final = "the tests moved to tests/; nothing else changes for you " * 4
_MESSAGES: Final = 300
_EACH_MS: Final = 100


class _Pair:
    """A hub and a studio, joined by so many links; `bytes` is what went over all of them."""

    def __init__(self, links: int) -> None:
        self.bytes = 0
        self.world = Cores("hub", "studio")
        carry_out = self.world.carry_out

        def counted(machine: Any, effects: list[ev.Effect]) -> None:
            here = {number for name, number in self.world._links if name == machine.name}
            self.bytes += sum(
                len(e.frame) for e in effects if isinstance(e, ev.Send) and e.link in here
            )
            carry_out(machine, effects)

        self.world.carry_out = counted  # type: ignore[method-assign]
        for _ in range(links):
            self.world.link("hub", "studio")
            self.world.pass_ms(1_000)
        self.came_bytes = self.bytes
        self.world.pass_ms(_SETTLE_MS)

    def spent(self, messages: int, pass_ms: int) -> int:
        """The bytes of so many messages, and of what answers them."""
        before = self.bytes
        for number in range(messages):
            text = {"text": [f"{number} {_TEXT}"], "to": "studio"}
            answer = self.world["hub"].order("send", "studio", text)
            assert answer["ok"], answer
            self.world.pass_ms(_EACH_MS)
        self.world.pass_ms(pass_ms)
        return self.bytes - before


async def run(*, short: bool) -> list[Figure]:
    """The ratios of seven links to one."""
    one, seven = _Pair(1), _Pair(LINKS)
    rows = {
        "one message": (1, 5_000),
        f"{_MESSAGES} messages, ten a second": (_MESSAGES // (3 if short else 1), 5_000),
        "at rest for half an hour": (0, _REST_MS // (6 if short else 1)),
    }
    figures = []
    for name, (messages, pass_ms) in rows.items():
        ours, alone = (pair.spent(messages, pass_ms) for pair in (seven, one))
        raw = f"{ours:,} bytes over seven links, {alone:,} over one"
        figures.append(Figure(f"bytes over 7 links, {name}", ours / alone, 1.3, raw))
    coming = f"{seven.came_bytes:,} bytes as seven came, {one.came_bytes:,} as one did"
    ratio = (seven.came_bytes - one.came_bytes) / (LINKS - 1) / one.came_bytes
    figures.append(
        Figure("bytes of a further link that comes, beside the first", ratio, 1.0, coming)
    )
    return figures
