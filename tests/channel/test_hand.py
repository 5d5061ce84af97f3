"""What the one thread of a place does with what fails on it."""

from pathlib import Path

import pytest
from tests.channel.rigs import run
from tests.promise import proves

from muster.channel.hand import Hand
from muster.errors import Exhausted


@proves("channel.place-hangs")
def test_what_fails_for_want_of_memory_is_said_and_ends_no_thread():
    def fails() -> None:
        raise MemoryError

    async def main() -> None:
        hand = Hand("the place", "place")
        with pytest.raises(Exhausted, match="no memory for what lies in the place"):
            await hand.do(fails)
        assert await hand.do(Path.cwd)
        hand.close()

    run(main())
