"""Who watches an attempt, with an agent that does what a test says."""

import asyncio
import json
import os
from types import SimpleNamespace
from typing import Any

from tests.promise import proves

from muster.agent import process
from muster.agent.base import AgentEvent, AttemptOrder
from muster.agent.catalogue import BUILT_IN
from muster.agent.gateway.call import Call
from muster.node.attempts.watch import HEALTH, Watch
from muster.node.counter import Counts
from muster.node.incidents import Noticed
from muster.task.detector import Detector, Seen, Thresholds, Verdict


def watch(told: list[Any], *, is_open: bool = False, **limits: Any) -> Any:
    incidents = SimpleNamespace(is_open=lambda _key: is_open)
    core = SimpleNamespace(counters=Counts(), incidents=incidents, name="studio")
    entry = SimpleNamespace(health=Thresholds(**limits))
    run = lambda _name, work: asyncio.ensure_future(work)  # noqa: E731
    daemon: Any = SimpleNamespace(
        core=core, effects=SimpleNamespace(agents={**BUILT_IN, "claude": entry}),
        post=told.append, supervisor=SimpleNamespace(run=run),
    )  # fmt: skip
    watched: Any = SimpleNamespace(
        task="ab" * 16, epoch=(1, 1), agent="claude", actor="claude@studio", template={},
        stop=lambda reason, stuck="": told.append((reason, stuck)),
    )  # fmt: skip
    return Watch(daemon, watched)


def call(ending: Any) -> Call:
    return Call(
        api="anthropic", method="POST", path="/v1/messages", ending=ending, status=502, why="no"
    )


@proves("health.conditions")
def test_a_model_that_is_not_reached_three_times_is_an_incident_until_one_answers():
    told: list[Any] = []
    made = watch(told)
    for ending in ("unreachable", "unreachable", "answered", "unreachable", "unreachable"):
        made.called(call(ending))
    assert told == []
    made.called(call("unreachable"))
    made.called(call("unreachable"))
    ((key, title),) = [(each.key, each.title) for each in told]
    assert (key, title.startswith("studio does not reach the model")) == ("model:anthropic", True)
    told.clear()
    watch(told, is_open=True).called(call("answered"))
    assert told == [Noticed("model:anthropic")]


@proves("health.detectors")
def test_a_deed_is_done_once_told_in_the_journal_and_nothing_is_watched_after_the_end(tmp_path):
    told: list[Any] = []
    made = watch(told, silent=0.02, unseen=0.02)
    heard = asyncio.Queue[None]()
    made._daemon.post = lambda event: (told.append(event), heard.put_nowait(None))
    made._watched.stop = lambda reason, stuck: (
        told.append((reason, stuck)),
        heard.put_nowait(None),
    )

    async def go(*, is_agent: bool) -> None:
        running: Any = SimpleNamespace(is_agent=is_agent, is_steered=False, cpu_ms=lambda: 0)
        running.is_mute, running.hears = False, lambda _listener: None
        served: Any = SimpleNamespace(gateways=None)
        async with made.over(running, served, tmp_path):
            made.happened(AgentEvent("agent.prompt", {}))
            while is_agent and len(told) < 2:
                await heard.get()
        assert made.detector is None

    asyncio.run(asyncio.wait_for(go(is_agent=True), 30))
    event, (reason, stuck) = told
    assert (event.kind, event.fields["detector"], event.fields["did"]) == (
        HEALTH,
        "silent",
        "ended",
    )
    assert (reason, stuck) == (f"silent: {event.fields['why']}", "silent")
    assert made._daemon.core.counters == {"stuck-silent": 1}
    told.clear()
    asyncio.run(asyncio.wait_for(go(is_agent=False), 30))
    assert told == [], "a plain command has its timeout"


@proves("health.detectors")
def test_a_full_journal_makes_nobody_silent(monkeypatch):
    """Its watch hears what is not kept; where its shim tells no more, nobody can be judged."""
    monkeypatch.setattr(process, "ATTEMPT_JOURNAL_BYTES_MAX", 2_000)
    monkeypatch.setattr(process, "EVENTS_MAX", 20)

    async def go() -> tuple[list[str], list[str], list[bool]]:
        out, errors = asyncio.StreamReader(), asyncio.StreamReader()
        stdin = SimpleNamespace(close=lambda: None, is_closing=lambda: True)

        async def nothing() -> None:
            pass

        shim: Any = SimpleNamespace(
            stdin=stdin, stdout=out, stderr=errors, pid=0, returncode=0, wait=nothing, close=nothing
        )  # fmt: skip
        kept, heard, mute = [], [], []
        order = AttemptOrder(task="t", epoch=(1, 1), agent="claude", prompt="", cwd="/", env={})
        running = process.ShimAttempt(shim, "m", order, lambda event: kept.append(event.kind))

        def hear(event: AgentEvent) -> None:
            heard.append(event.kind)
            mute.append(running.is_mute)

        running.hears(hear)
        for _ in range(20):
            out.feed_data(json.dumps({"event": ["agent.tool", {"call": "1"}]}).encode() + b"\n")
        out.feed_data(json.dumps({"outcome": {"status": "ok"}}).encode() + b"\n")
        out.feed_eof()
        errors.feed_eof()
        await running.wait()
        return kept, heard, mute

    kept, heard, mute = asyncio.run(asyncio.wait_for(go(), 30))
    assert len(kept) < 10
    assert heard == ["agent.tool"] * 20
    assert mute == [False] * 19 + [True]


@proves("health.detectors")
def test_an_attempt_of_which_nothing_is_told_any_more_is_judged_no_more(tmp_path):
    told: list[Any] = []
    made = watch(told, silent=0.02, unseen=0.02)
    running: Any = SimpleNamespace(
        is_agent=True, is_steered=False, is_mute=True, cpu_ms=lambda: 0, hears=lambda _event: None
    )

    async def go() -> None:
        tasks: list[asyncio.Task[Any]] = []
        run = lambda _name, work: tasks.append(asyncio.ensure_future(work)) or tasks[0]  # noqa: E731
        made._daemon.supervisor.run = run
        async with made.over(running, SimpleNamespace(gateways=None), tmp_path):
            await tasks[0]

    asyncio.run(asyncio.wait_for(go(), 30))
    assert told == []


@proves("health.loop-fails")
def test_a_disk_whose_clock_is_ahead_of_ours_shows_one_change_and_not_one_at_each_look(
    tmp_path, monkeypatch
):
    """As where our clock was set back, or the folder is of another machine."""

    class Counting(Detector):
        wants_change = True
        progress = looks = 0

        def progressed(self) -> None:
            self.progress += 1

        def look(self, _at_s: float, _seen: Seen) -> Verdict | None:
            self.looks += 1
            return Verdict("loop", "fail", "it loops") if self.looks == 4 else None

    (tmp_path / "main.py").touch()
    ahead_s = (tmp_path / "main.py").stat().st_mtime + 3_600
    os.utime(tmp_path / "main.py", (ahead_s, ahead_s))
    monkeypatch.setattr("muster.node.attempts.watch.Detector", Counting)
    made, over = watch([], silent=0.02), asyncio.Event()
    made._watched.stop = lambda _reason, stuck: over.set()

    async def go() -> Any:
        running: Any = SimpleNamespace(is_agent=True, is_steered=True, cpu_ms=lambda: 0)
        running.is_mute, running.hears = False, lambda _listener: None
        async with made.over(running, SimpleNamespace(gateways=None), tmp_path):
            found = made.detector
            await over.wait()
        return found

    assert asyncio.run(asyncio.wait_for(go(), 30)).progress == 1
