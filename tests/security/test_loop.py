"""Verbs that wait in the daemon's loop: whoever asked is answered, also after a mistake of ours."""

import asyncio
from typing import Any

import pytest

from muster.channel.frame import Type
from muster.errors import Refused
from muster.limits import STEP_FRAMES_BYTES_MAX
from muster.log import canon
from muster.log.stream import JOURNAL
from muster.node import event as ev
from muster.node.counter import Counts
from muster.node.daemon import Daemon
from muster.node.event_queue import WAITING_BYTES_MAX, EventQueue
from muster.node.supervisor import Supervisor
from tests.promise import proves
from tests.security.target import LOCAL, Target


class Half:
    """As much of a daemon as answers one call."""

    _wait_for = Daemon._wait_for

    def __init__(self, handler: Any) -> None:
        self.verbs = {"x": type("Verb", (), {"load": lambda _self: handler})()}
        self.answers: list[Any] = []

    def answer(self, _call: Any, answer: Any) -> None:
        self.answers.append(answer)


class Stepping:
    """As much of a daemon as gathers events into steps."""

    post, _flush = Daemon.post, Daemon._flush

    def __init__(self) -> None:
        self._events = EventQueue()
        self._due = False
        self._stopping = asyncio.Event()
        self.room = type("Room", (), {"full": False})
        self.core = self
        self.steps: list[list[ev.Event]] = []

    def step(self, events: list[ev.Event], _now: Any) -> bool:
        self.steps.append(events)
        return False

    def _step(self, work: Any) -> bool:
        return bool(work())


@proves("node.step-bounded-in-bytes")
def test_a_burst_of_segments_is_a_step_for_each_and_a_question_waits_for_one() -> None:
    async def scenario() -> list[list[ev.Event]]:
        daemon: Any = Stepping()
        large = [ev.Arrived(1, Type.SEGMENT, 0, bytes(150_000)) for _ in range(3)]
        small = [ev.Arrived(2, Type.CALL, number, bytes(500)) for number in range(64)]
        for event in (*large[:2], *small, large[2], ev.Tick()):
            daemon.post(event)
        for _ in range(5):
            await asyncio.sleep(0)
        assert [e for step in daemon.steps for e in step] == [
            *large[:2],
            *small,
            large[2],
            ev.Tick(),
        ]
        # A frame that is larger than a step is one, and what is small is gathered.
        daemon.post(huge := ev.Arrived(1, Type.SEGMENT, 0, bytes(STEP_FRAMES_BYTES_MAX + 1)))
        await asyncio.sleep(0)
        assert daemon.steps[-1] == [huge]
        return daemon.steps

    assert [len(step) for step in asyncio.run(scenario())] == [1, 65, 2, 1]


@proves("node.step-bounded-in-bytes")
@pytest.mark.parametrize("size", [200_000, 1_000, 0])
def test_links_that_bring_more_than_steps_take_are_read_no_further(size: int) -> None:
    async def scenario() -> None:
        queue, read = EventQueue(), 0

        async def link(number: int) -> None:
            nonlocal read
            while True:
                await queue.room()
                queue.put(ev.Arrived(number, Type.DATA, 0, bytes(size)))
                read += 1
                await asyncio.sleep(0)

        links = [asyncio.ensure_future(link(number)) for number in range(8)]
        for _ in range(20_000 // max(1, size // 1_000)):
            await asyncio.sleep(0)
        # What the others had in their hands when one filled it is no more than a frame.
        most = WAITING_BYTES_MAX // max(size, 256) + 1
        assert (len(queue), read) == (most, most)
        taken = 0
        while taken < 3 * most:
            taken += len(step := queue.take())
            assert 0 < sum(max(size, 256) for _ in step) <= max(STEP_FRAMES_BYTES_MAX, size)
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(queue) <= most + 8
        for each in links:
            each.cancel()

    asyncio.run(scenario())


async def _mistake(_daemon: Any, _call: Any, _ask: Any) -> Any:
    raise AttributeError("secret detail of the code")


async def _refusal(_daemon: Any, _call: Any, _ask: Any) -> Any:
    raise Refused("no\n\x1b[2J" + "x" * 10_000)


async def _nothing(_daemon: Any, _call: Any, _ask: Any) -> Any:
    return None


@proves("node.loop-verbs-answer")
def test_whoever_asked_is_answered_once_whatever_goes_wrong() -> None:
    call: Any = ev.Perform(1, 1, "x", {}, "")
    for handler in (_mistake, _refusal, _nothing):
        half: Any = Half(handler)
        try:
            asyncio.run(half._wait_for(call, None))
        except AttributeError:
            # The supervisor reports it, with its traceback, to the daemon's own log.
            assert handler is _mistake
        (answer,) = half.answers
        assert answer["ok"] == (handler is _nothing)
        if not answer["ok"]:
            text = answer["error"]["text"]
            assert text.isprintable()
            assert "secret detail" not in text
            assert len(text) < 1000


@pytest.mark.parametrize("task", ["t1", "t2"])
@proves("node.journal-of-one-task")
def test_the_journal_of_a_task_does_not_show_other_tasks_that_speak_of_it(task: str) -> None:
    target = Target()
    with target.store.transaction():
        for own, text in (("t1", "mine"), ("t2", "about t1"), ("t1", "about t2")):
            body = canon.encode({"epoch": [1, 1], "kind": "read", "task": own, "text": text})
            target.core.append("agent.output", body, scope=JOURNAL, actor="noop@studio")
        target.store.seal_dirty(target.core.membership.signer("seal"))
    statement = target.order("journal", task, {"task": task})
    answers = target.call(LOCAL, "journal", {"task": task}, statement=statement)
    shown = [a["value"] for a in answers if "text" in a["value"]]
    assert [each["task"] for each in shown] == [task] * len(shown)
    assert len(shown) == (2 if task == "t1" else 1)
    assert all(each["kind"] == "agent.output" for each in shown), "nobody chooses the kind"


@proves("node.rounds-go-on")
def test_a_hub_that_answers_nonsense_does_not_end_the_renewal_of_papers(capsys: Any) -> None:
    ended: list[str] = []
    rounds: list[int] = []

    async def certificates(supervisor: Supervisor) -> None:
        for number in range(3):
            async with supervisor.attempt("certificates"):
                rounds.append(number)
                raise Refused("the answer is\nnone \x1b[2J")

    async def life() -> None:
        counts = Counts()
        supervisor = Supervisor(counts, ended.append, ended.append)
        await supervisor.run("certificates", certificates(supervisor))
        assert counts["background-certificates-refused"] == 3

    asyncio.run(life())
    assert rounds == [0, 1, 2]
    assert not ended
    assert "\x1b" not in capsys.readouterr().err
