"""The tunnel's windows: nobody sends more than was granted, nobody waits for ever."""

import asyncio
import os

import pytest
from tests.git.repositories import wait
from tests.promise import proves

from muster import limits
from muster.errors import Malformed
from muster.git import serve as remote

WINDOW = limits.GIT_WINDOW_BYTES


class Far:
    """The other side of a tunnel whose near side is a pipe to `git` and one back."""

    def __init__(self) -> None:
        self.sent: list[tuple[remote.Kind, bytes]] = []
        self.moved = asyncio.Condition()
        self.tunnel = remote.Tunnel(self.send)

    async def send(self, kind: remote.Kind, payload: bytes) -> None:
        async with self.moved:
            self.sent.append((kind, payload))
            self.moved.notify_all()

    def data(self) -> bytes:
        return b"".join(payload for kind, payload in self.sent if kind == "data")

    def credit(self) -> int:
        return sum(int.from_bytes(raw, "big") for kind, raw in self.sent if kind == "credit")

    def put(self, kind: remote.Kind, payload: bytes = b"") -> None:
        self.tunnel.feed(kind, payload)

    async def until(self, condition) -> None:
        async with asyncio.timeout(10), self.moved:
            await self.moved.wait_for(condition)


async def opened(far: Far):
    """A running tunnel, and what git has: (task, to read from the far side, to write to it)."""
    loop = asyncio.get_running_loop()
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    reader = asyncio.StreamReader()
    reading, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(out_read, "rb", 0)
    )
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(in_write, "wb", 0)
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    task = asyncio.create_task(far.tunnel.run((reader, writer)))
    return task, os.fdopen(in_read, "rb", 0), os.fdopen(out_write, "wb", 0), (reading, writer)


async def finish(*ends) -> None:
    *pipes, transports = ends
    for end in (*transports, *pipes):
        end.close()
    # One turn each for the transports to let go of their pipes.
    for _ in range(4):
        await asyncio.sleep(0)


@proves("git.flow-control")
def test_no_more_is_sent_than_the_window_and_the_rest_follows_the_credit():
    async def play():
        far = Far()
        task, git_in, git_out, transports = await opened(far)
        feed = asyncio.create_task(asyncio.to_thread(git_out.write, b"x" * (WINDOW + 1000)))
        await far.until(lambda: len(far.data()) >= WINDOW)
        assert len(far.data()) == WINDOW
        # One more than is left, since an end is only seen while there is room to say it.
        far.put("credit", (1001).to_bytes(4, "big"))
        await far.until(lambda: len(far.data()) == WINDOW + 1000)
        await feed
        git_out.close()
        assert await task is True
        assert far.sent[-1] == ("data", b"")
        await finish(git_in, transports)

    wait(play())


@proves("git.flow-control")
def test_what_git_has_read_is_granted_again_and_the_end_is_passed_on():
    async def play():
        far = Far()
        task, git_in, git_out, transports = await opened(far)
        got = asyncio.create_task(asyncio.to_thread(git_in.readall))
        for sent in range(0, 3 * WINDOW, 65536):
            await far.until(lambda sent=sent: WINDOW + far.credit() - sent >= 65536)
            far.put("data", b"y" * 65536)
        far.put("data")
        assert len(await got) == 3 * WINDOW
        assert far.credit() >= 2 * WINDOW
        assert not task.done()
        far.put("close")
        assert await task is False
        await finish(git_in, git_out, transports)

    wait(play())


@proves("git.flow-control")
@pytest.mark.parametrize(
    "frames",
    [
        [("data", b"z" * 65536)] * (WINDOW // 65536 + 1),
        [("credit", b"\0\0\0\1")],
        [("credit", b"1")],
        [("credit", b"")],
        [("data", b""), ("data", b"more")],
    ],
)
def test_a_far_side_that_breaks_the_window_is_cut(frames):
    async def play():
        far = Far()
        task, git_in, git_out, transports = await opened(far)
        # Git reads nothing, so nothing is granted back.
        for kind, payload in frames:
            far.put(kind, payload)
        with pytest.raises(Malformed):
            await asyncio.wait_for(task, 10)
        await finish(git_in, git_out, transports)

    wait(play())


@proves("git.hostile-input")
@pytest.mark.parametrize(
    "question",
    [
        None,
        [],
        {},
        {"machine": "hub", "repo": "main", "service": "git-shell"},
        {"machine": "hub", "repo": 1, "service": "git-upload-pack"},
        {"machine": ["hub"], "repo": "main", "service": "git-upload-pack"},
        {"machine": "hub", "repo": "main", "service": ["git-upload-pack"]},
    ],
)
def test_a_question_of_another_shape_is_refused(question):
    with pytest.raises(Malformed):
        remote.parse(question)


@proves("git.hostile-input")
def test_nothing_is_served_to_an_unproven_machine(tmp_path):
    with pytest.raises(Malformed):
        wait(remote.serve(tmp_path, "git-receive-pack", peer="", sock="x"))
