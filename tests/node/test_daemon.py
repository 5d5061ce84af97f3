"""The daemon's own parts: what is sent first, and what a mistake of ours ends."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from tests.promise import proves

from muster.errors import Broken, Refused, Unreachable
from muster.limits import LINK_CALLS_OPEN_MAX, LINKS_OF_MACHINE_MAX
from muster.node import event as ev
from muster.node.counter import Counts
from muster.node.daemon import OUTBOX_FRAMES_MAX, Daemon, Outbox
from muster.node.supervisor import Supervisor


class Slow:
    """A link that takes one batch at a time, when it is told to."""

    def __init__(self) -> None:
        self.sent: list[list[bytes]] = []
        self.may = asyncio.Semaphore(0)
        self.asked = asyncio.Event()

    async def send_all(self, frames: list[bytes]) -> None:
        self.sent.append(list(frames))
        self.asked.set()
        await self.may.acquire()


def full_once(calls: list[str]) -> Any:
    return lambda: calls.append("full")


@proves("node.quick-overtakes")
def test_answers_overtake_segments_and_each_kind_keeps_its_order():
    async def drive() -> list[bytes]:
        link: Any = Slow()
        outbox = Outbox(link, 10**9, full_once([]))
        running = asyncio.ensure_future(outbox.run())
        large = b"s" * 600_000
        outbox.put(b"1" + large, bulk=True)
        outbox.put(b"2" + large, bulk=True)
        await link.asked.wait()
        outbox.put(b"a", bulk=False)
        outbox.put(b"b", bulk=False)
        for _ in range(4):
            link.may.release()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        running.cancel()
        return [frame[:1] for batch in link.sent for frame in batch]

    order = asyncio.run(drive())
    assert sorted(order) == [b"1", b"2", b"a", b"b"]
    assert order.index(b"a") < order.index(b"2")
    assert order.index(b"1") < order.index(b"2")
    assert order.index(b"a") < order.index(b"b")


@proves("node.quick-overtakes")
def test_whoever_waits_for_room_goes_on_also_where_another_one_sent_what_was_in_the_way():
    class Filling:
        ready = False

        def send_all_nowait(self, batch: list[bytes]) -> None: ...

        async def send_all(self, batch: list[bytes]) -> None: ...

    async def drive() -> None:
        link: Any = Filling()
        outbox = Outbox(link, 10**9, full_once([]))
        running = asyncio.ensure_future(outbox.run())
        await asyncio.sleep(0)
        half: Any = SimpleNamespace(_outboxes={1: outbox})

        async def waits() -> None:
            for _ in range(OUTBOX_FRAMES_MAX + 1):
                outbox.put(b"x", bulk=True)
            outbox.release()
            await Daemon.drained(half, 1)

        async def answers() -> None:
            # The link has room again, and this is sent before the writer has its turn.
            link.ready = True
            outbox.put(b"y", bulk=False)
            outbox.release()

        async with asyncio.timeout(2):
            await asyncio.gather(waits(), answers())
        running.cancel()

    asyncio.run(drive())


@proves("node.outbox-bounded")
def test_a_peer_that_does_not_read_is_cut_once_and_costs_no_more_memory():
    calls: list[str] = []

    async def drive() -> int:
        link: Any = Slow()
        outbox = Outbox(link, 1_000, full_once(calls))
        for _ in range(100):
            outbox.put(b"x" * 100, bulk=True)
        return sum(map(len, outbox.bulk))

    assert asyncio.run(drive()) <= 1_000
    assert calls == ["full"]


@proves("node.mistakes-end-one-thing")
@pytest.mark.parametrize(
    ("error", "ends", "counted"),
    [
        (Unreachable("away"), False, "background-work-unreachable"),
        (Refused("no"), False, "background-work-refused"),
        (KeyError("ours"), False, "background-work-failed"),
        (Broken("a file cannot be read"), False, "background-work-broken"),
    ],
)
def test_a_task_that_fails_ends_alone(error, ends, counted):
    fatal: list[str] = []
    counts = Counts()
    supervisor = Supervisor(counts, fatal.append, fatal.append)

    async def fails() -> None:
        raise error

    async def drive() -> None:
        await supervisor.run("work", fails())

    asyncio.run(drive())
    assert bool(fatal) is ends
    assert counts[counted] == 1


@proves("node.mistakes-end-one-thing")
@pytest.mark.parametrize(
    ("error", "ends", "begins_anew"),
    [(Broken("the disk is full"), 1, 0), (KeyError("ours"), 0, 1), (BufferError("ours"), 0, 1)],
)
def test_a_step_that_fails_ends_with_a_fresh_start_unless_this_machine_cannot(
    error, ends, begins_anew
):
    fatal: list[str] = []
    anew: list[str] = []
    counts = Counts()
    supervisor = Supervisor(counts, fatal.append, anew.append)

    def step() -> None:
        raise error

    assert supervisor.step(step) is None
    assert (len(fatal), len(anew)) == (ends, begins_anew)
    assert counts["step-failed"] == 1


@proves("node.begins-anew")
@pytest.mark.parametrize("told", [True, False])
def test_whoever_stops_a_daemon_that_is_about_to_begin_anew_is_heard(told):
    async def drive() -> bool:
        daemon = Daemon.__new__(Daemon)
        daemon.why_stopped, daemon.begins_anew = "", True
        daemon._stopping, daemon._told_to_stop = asyncio.Event(), asyncio.Event()
        daemon.ends = lambda _wanted: None
        if told:
            asyncio.get_running_loop().call_soon(daemon.stop)
        return await daemon.goes_on(5.0 if told else 0.0)

    assert asyncio.run(drive()) is not told


@proves("node.links-of-a-machine")
def test_a_machine_has_so_many_links_and_its_newest_count():
    class End:
        def __init__(self, peer: str) -> None:
            self.peer = peer

    class Half:
        """As much of a daemon as counts links."""

        make_place = Daemon._make_place

        def __init__(self) -> None:
            self._outboxes: dict[int, Any] = {}
            self.cuts: list[int] = []

        def _cut(self, effect: ev.Cut) -> None:
            self.cuts.append(effect.link)
            del self._outboxes[effect.link]

    half: Any = Half()
    for number in range(1, LINKS_OF_MACHINE_MAX + 4):
        half._outboxes[number] = Outbox(End("a"), 1, full_once([]))  # type: ignore[arg-type]
        half.make_place(number, "a")
    for number in range(100, 150):
        half._outboxes[number] = Outbox(End(""), 1, full_once([]))  # type: ignore[arg-type]
        half.make_place(number, "")
    assert half.cuts == [1, 2, 3]


@proves("node.streams-end-with-the-caller", "channel.git-event")
def test_a_link_that_ends_takes_its_streams_along_and_is_told_to_the_core():
    async def drive() -> tuple[list[int], list[ev.Event], list[str]]:
        ended, posted, looked = list[int](), list[ev.Event](), list[str]()

        async def receive() -> bytes:
            raise Unreachable("gone")

        def run(_name: str, work: Any) -> "asyncio.Future[None]":
            work.close()
            return asyncio.get_running_loop().create_future()

        link: Any = SimpleNamespace(peer="p", channel="http", receive=receive)
        half: Any = SimpleNamespace(
            _numbers=iter([7]), _outboxes={}, _make_place=lambda *_: None, _write=lambda _: None,
            _cut=pytest.fail, post=posted.append, room=SimpleNamespace(there=asyncio.Event()),
            supervisor=SimpleNamespace(run=run),
            relays=SimpleNamespace(direct=lambda _: None),
            paths=SimpleNamespace(came=lambda *_: None, went=lambda *_: None),
            mailboxes=SimpleNamespace(came=looked.append),
            streams=SimpleNamespace(link_down=ended.append),
        )  # fmt: skip
        await Daemon.serve(half, link)
        return ended, posted, looked

    ended, posted, looked = asyncio.run(drive())
    assert (ended, looked) == ([7], ["p"])
    assert posted == [ev.LinkUp(7, "p", False, "http", ""), ev.LinkDown(7)]


@proves("node.mistakes-end-one-thing")
@pytest.mark.parametrize(
    "error", [KeyError("ours"), Broken("a file"), Refused("no"), OSError(24, "fd")]
)
def test_what_must_not_end_begins_again_after_it_failed(monkeypatch, error):
    monkeypatch.setattr("muster.node.supervisor.AGAIN_S_MIN", 0.0)
    begun: list[int] = []

    async def rounds() -> None:
        begun.append(1)
        if len(begun) < 4:
            raise error

    async def drive() -> None:
        supervisor = Supervisor(Counts(), pytest.fail, pytest.fail)
        await supervisor.keep("rounds", rounds)

    asyncio.run(drive())
    assert len(begun) == 4


@proves("node.member-bounded")
def test_so_many_calls_of_a_link_are_under_way_and_each_that_ends_makes_place():
    class Half:
        """As much of a daemon as begins calls."""

        perform = Daemon._perform_call
        _performed = Daemon._performed

        def __init__(self) -> None:
            self._performing: Counter[int] = Counter()
            self.supervisor = Supervisor(Counts(), str, str)
            self.verbs = {"repo.list": SimpleNamespace(runs="async")}
            self.gate = asyncio.Event()
            self.refused: list[Any] = []

        async def _wait_for(self, _call: Any, _stream: Any) -> None:
            await self.gate.wait()

        def answer(self, _call: Any, answer: Any) -> None:
            self.refused.append(answer["error"]["kind"])

    async def drive() -> None:
        half: Any = Half()
        call: Any = ev.Perform(1, 1, "repo.list", {}, "peer")
        other: Any = ev.Perform(2, 1, "repo.list", {}, "peer")
        for _ in range(LINK_CALLS_OPEN_MAX + 3):
            half.perform(call)
        assert half.refused == ["Conflict"] * 3
        half.perform(other)
        assert half._performing == {1: LINK_CALLS_OPEN_MAX, 2: 1}
        half.gate.set()
        await asyncio.wait(half.supervisor._tasks)
        await asyncio.sleep(0)
        assert half._performing == {}
        half.perform(call)
        assert half.refused == ["Conflict"] * 3
        await asyncio.wait(half.supervisor._tasks)

    asyncio.run(drive())


@proves("node.mistakes-end-one-thing")
def test_a_link_that_cannot_be_written_to_is_cut_and_keeps_no_other_waiting():
    def broken() -> None:
        raise BrokenPipeError("not open for sending")

    sent, cuts = list[int](), list[ev.Cut]()
    half: Any = SimpleNamespace(
        core=SimpleNamespace(counters=Counter[str]()),
        _cut=cuts.append,
        _filled={1: SimpleNamespace(release=broken),
                 2: SimpleNamespace(release=lambda: sent.append(2))},
    )  # fmt: skip
    Daemon._perform(half, [])
    assert sent == [2]
    assert [cut.link for cut in cuts] == [1]
    assert half.core.counters["links-broken"] == 1
