"""Which links carry: when each was last proven to, and which are in doubt.

Rule 1: a link proves itself by an answer to what was said over it. That it stands proves nothing,
and what the peer says of its own accord proves one direction alone.
Rule 2: a doubt stands until an answer comes that is no older.
Rule 3: a cheaper link that is not proven counts for nothing beside one that is; of links that cost
the same the newest counts at once, for whoever dials again knows why.
"""

from collections.abc import Iterable, Mapping

# Whether a third machine is in the middle, and what the channel costs.
Cost = tuple[bool, int]


class Proofs:
    """Of every link by its number; times by the clock of the core."""

    def __init__(self) -> None:
        self._proven: dict[int, int] = {}
        self._doubted: dict[int, int] = {}

    def prove(self, link: int, now_ms: int) -> None:
        """The peer answered what was said over this link."""
        self._proven[link] = now_ms

    def doubt(self, link: int, now_ms: int) -> None:
        """What was said over it was not answered."""
        self._doubted[link] = now_ms

    def forget(self, link: int) -> None:
        """It is gone."""
        self._proven.pop(link, None)
        self._doubted.pop(link, None)

    def proven_ms(self, link: int) -> int | None:
        """When an answer last came over it."""
        return self._proven.get(link)

    def doubted_ms(self, link: int) -> int | None:
        """Since when it is in doubt; none where it is not."""
        return self._doubted[link] if self.is_doubted(link) else None

    def is_doubted(self, link: int) -> bool:
        """Whether what was said over it was not answered since."""
        return link in self._doubted and self._proven.get(link, -1) < self._doubted[link]

    def is_believed(self, link: int) -> bool:
        """Whether it is proven, and not in doubt."""
        return link in self._proven and not self.is_doubted(link)

    def trusted(self, links: Iterable[int]) -> list[int]:
        """Those that are believed; where none is, those that are not in doubt."""
        every = list(links)
        believed = [link for link in every if self.is_believed(link)]
        return believed or [link for link in every if not self.is_doubted(link)]

    def best(self, links: Iterable[int], costs: Mapping[int, Cost]) -> int | None:
        """The newest of those that cost as much as the cheapest that is trusted; the oldest link
        comes first.
        """
        every = list(links)
        trusted = self.trusted(every) or every
        least = min((costs[link] for link in trusted), default=None)
        for link in reversed(every):
            if costs[link] == least and (link in trusted or not self.is_doubted(link)):
                return link
        return None
