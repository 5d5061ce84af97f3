"""A peer that asks and does not read, against the daemon's own queues."""

import asyncio
from typing import Any

from muster.node.daemon import Outbox
from muster.node.supervisor import say
from tests.promise import proves


class Deaf:
    """A link whose far end reads nothing."""

    def __init__(self) -> None:
        self.taken = 0

    ready = False

    async def send_all(self, frames: list[bytes]) -> None:
        self.taken += len(frames)
        await asyncio.Event().wait()


@proves("node.outbox-bounded")
def test_a_peer_that_reads_nothing_is_cut_before_memory_grows() -> None:
    async def flood() -> None:
        cut: list[int] = []
        link: Any = Deaf()
        outbox = Outbox(link, 1_000_000, lambda: cut.append(1))
        sending = asyncio.create_task(outbox.run())
        for _ in range(5_000):
            outbox.put(b"x" * 1000, bulk=False)
            outbox.release()
            await asyncio.sleep(0)
        sending.cancel()
        assert cut == [1], "it is cut once"
        assert sum(map(len, outbox.quick)) <= 1_000_000

    asyncio.run(flood())


@proves("node.outbox-bounded")
def test_a_peer_that_reads_is_never_cut() -> None:
    class Fine(Deaf):
        async def send_all(self, frames: list[bytes]) -> None:
            self.taken += len(frames)

    async def talk() -> None:
        cut: list[int] = []
        link: Any = Fine()
        outbox = Outbox(link, 100_000, lambda: cut.append(1))
        sending = asyncio.create_task(outbox.run())
        for _ in range(1_000):
            outbox.put(b"x" * 1000, bulk=False)
            outbox.release()
            await asyncio.sleep(0)
        sending.cancel()
        assert not cut
        assert link.taken >= 990

    asyncio.run(talk())


@proves("node.quick-overtakes")
def test_a_link_that_is_ready_gets_its_frames_in_the_step_that_sends_them() -> None:
    class Ready:
        ready = True

        def __init__(self) -> None:
            self.frames: list[bytes] = []

        def send_all_nowait(self, frames: list[bytes]) -> None:
            self.frames += frames
            self.ready = len(self.frames) < 3

    async def talk() -> None:
        link: Any = Ready()
        outbox = Outbox(link, 100_000, lambda: None)
        outbox.put(b"bulk", bulk=True)
        outbox.put(b"quick", bulk=False)
        outbox.release()
        assert link.frames == [b"quick", b"bulk"]
        outbox.put(b"1", bulk=False)
        outbox.release()
        assert not link.ready
        outbox.put(b"2", bulk=False)
        outbox.release()
        assert link.frames == [b"quick", b"bulk", b"1"]
        assert list(outbox.quick) == [b"2"], "it waits for the writer"
        assert outbox.bell.is_set()

    asyncio.run(talk())


@proves("node.notes-are-one-line")
def test_control_characters_never_reach_the_daemons_log(capsys: Any) -> None:
    say("a\x1b[2J\u202eb\x07\r")
    shown = capsys.readouterr().err
    assert not set(shown) & set("\x1b\u202e\x07\r")
