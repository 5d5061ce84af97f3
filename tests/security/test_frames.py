"""Every type of frame with hostile payloads, from every door, through a whole core: no exception
leaves `step`, nothing durable changes, and the machine goes on."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from muster.channel.frame import Type
from muster.limits import (
    FRAME_PAYLOAD_BYTES_MAX,
    HELLO_BYTES_MAX,
    LINK_CALLS_OPEN_MAX,
    NOTES_PER_MINUTE_MAX,
)
from muster.log import canon
from muster.log.stream import FLEET
from muster.node import event as ev
from muster.node.call.router import Router
from muster.node.link import channels
from muster.node.tasks.attempt_body import AttemptEvent
from muster.task.kinds import NO_EPOCH
from tests.fleet.world import BUILD, LAPTOP, STUDIO
from tests.node.cores import attempt_ended
from tests.promise import proves
from tests.security.target import LOCAL, MEMBER, STRANGER, Target, check_sentence

STREAMS = [
    f"{STUDIO.machine}/{1:032x}/fleet", f"{BUILD.machine}/{'b' * 32}/fleet", f"{BUILD.machine}/{'c' * 32}/journal",
    f"{LAPTOP.machine}/{'c' * 32}/to.{STUDIO.machine}", f"{BUILD.machine}/{'c' * 32}/g.{BUILD.machine}.x",
    "", "x", "../../../etc", "\u202e/\n/\0", f"{'0' * 64}/{'0' * 32}/fleet",
]  # fmt: skip
NUMBERS = [-1, 0, 1, 2, 3, 2**40, 2**53 - 1]
TEXTS = ["", "x", "00", "zz", "0" * 64, "—", "\0", "a\n\n— x AAAA\n", "{}", "[]"]


def messages(rng: random.Random, count: int) -> Iterator[bytes]:
    """Sync messages of every kind whose fields are of the right type and wrong in every other way."""
    for _ in range(count):
        stream, number = rng.choice(STREAMS), rng.choice(NUMBERS)
        head = {"proof": rng.choices(TEXTS, k=2), "seal": rng.choice(TEXTS), "since": rng.choice(NUMBERS),
                "size": number, "stream": stream}  # fmt: skip
        found: Any = rng.choice([
            {"forks": rng.choices(TEXTS, k=1), "heads": [head], "type": "offer", "whole": True},
            {"heads": [head] * 3, "type": "offer"},
            {"start": number, "stream": stream, "type": "want"},
            {"size": number, "stream": stream, "type": "witnessed"},
            {"notes": rng.choices(TEXTS, k=3), "type": "cosigns"},
            {"size": number, "stream": stream, "type": "probe"},
            {"root": rng.choice(TEXTS), "size": number, "stream": stream, "type": "root"},
            {"index": number, "stream": stream, "type": "prove"},
            {"branch": rng.choice(TEXTS), "index": number, "stream": stream, "type": "leaf"},
        ])  # fmt: skip
        yield canon.encode(found)


HELLOS = [
    b'{"muster":"1","wall_ms":1e400}', b'{"muster":"1","wall_ms":-1e308}', b'{"muster":"1","wall_ms":NaN}',
    b'{"muster":"1","wall_ms":Infinity}', b'{"muster":"1","wall_ms":' + b"9" * 900 + b"}",
    b'{"muster":["x"],"wall_ms":"5"}', b'{"muster":"\x1b[2J\\u202e","wall_ms":5}', b"[" * 1000, b'{"a":' * 200,
    b"null", b"[]", b"5", b'""', b"\xff", b'{"muster":"1","wall_ms":true}', b"x" * (HELLO_BYTES_MAX + 1),
]  # fmt: skip


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.store.close()


@pytest.mark.parametrize("type_", list(Type), ids=lambda t: t.name)
@pytest.mark.parametrize("link", [STRANGER, MEMBER, LOCAL])
@proves("node.frames-never-end-it")
def test_no_frame_changes_what_is_durable_or_leaves_the_core_broken(
    target: Target, type_: Type, link: int
) -> None:
    rng = random.Random(f"{type_}{link}")
    before = target.state()
    target.deeds()
    payloads = [b"", b"\0", b"{}", b"[" * 5000, bytes(FRAME_PAYLOAD_BYTES_MAX), *HELLOS]
    payloads += messages(rng, 80)
    payloads += [rng.randbytes(rng.randint(1, 300)) for _ in range(40)]
    payloads += [
        h + p for h in (b"+", b"*", b".") for p in (b"", b"{}", b"[]", b"\xff", b"[" * 5000)
    ]
    for payload in payloads:
        # After too many faults the daemon cuts; a core must bear what was under way.
        target.frame(link, type_, payload, rng.choice([0, 1, 77, 2**32 - 1]))
    target.step(ev.Tick())
    assert target.state() == before
    # A frame of a stream is handed back, for whoever may have one on that channel.
    assert not [e for e in target.deeds() if not isinstance(e, ev.Cut | ev.Stray)]
    assert target.call(LOCAL, "status")[0]["ok"]
    assert target.call(LOCAL, "machines")[0]["ok"]


@pytest.mark.parametrize("type_", list(Type), ids=lambda t: t.name)
@proves("node.strangers-enrol-only")
def test_of_a_link_that_proved_no_machine_nothing_but_calls_and_streams_reaches_a_part(
    target: Target, type_: Type
) -> None:
    heard: list[str] = []
    for link in (STRANGER, MEMBER):
        target.core.frames[type_] = lambda link, *_: heard.append(link.peer)
        target.frame(link, type_, b"{}", 1)
    open_to_all = type_ in {Type.CALL, Type.REPLY, Type.DATA, Type.CREDIT, Type.CLOSE}
    assert ("" in heard) is open_to_all
    assert len(heard) == 1 + open_to_all


@proves("node.frames-never-end-it")
def test_a_hello_can_neither_end_the_machine_nor_spoil_its_status(target: Target) -> None:
    for hello in HELLOS:
        target.frame(MEMBER, Type.HELLO, hello)
        answer = target.call(LOCAL, "machines")[0]
        assert answer["ok"]
        assert all(isinstance(m.get("skew_ms", 0), int) for m in answer["value"])


@proves("node.frames-never-end-it")
def test_a_link_that_brings_only_faults_is_cut(target: Target) -> None:
    cut: list[ev.Effect] = []
    for _ in range(150):
        cut += [e for e in target.frame(MEMBER, Type.OFFER, b"x") if isinstance(e, ev.Cut)]
    assert cut
    cut = []
    for _ in range(150):
        cut += [e for e in target.frame(STRANGER, Type.OFFER, b"x") if isinstance(e, ev.Cut)]
    assert cut


@proves("node.notes-are-one-line")
def test_what_goes_into_the_daemons_log_is_one_printable_line(target: Target) -> None:
    for payload in (b"\n\n\x1b[2J", b'{"\x1b[2J\\n":1}', *messages(random.Random(1), 300)):
        for effect in target.frame(MEMBER, Type.OFFER, payload):
            if isinstance(effect, ev.Note):
                assert effect.text.isprintable()
                assert len(effect.text) <= 1000


@proves("node.frames-never-end-it")
def test_answers_nobody_asked_for_and_broken_ones_are_survived(target: Target) -> None:
    got: list[Any] = []
    for raw in (b".x", b".[]", b".null", b".\xff", b"." + b"[" * 100_000, b"+" * 10, b""):
        target.core.part(Router).ask(BUILD.machine, "renew", {}, got.append)
        sent = target.core.effects[-1]
        assert isinstance(sent, ev.Send)
        number = int.from_bytes(sent.frame[2:6], "big")
        target.step()
        target.frame(MEMBER, Type.REPLY, raw, number)
        target.frame(MEMBER, Type.REPLY, b".{}", number)
    assert len(got) == 7, "whoever asked hears exactly one answer"
    assert all(isinstance(each, dict) for each in got)


@proves("node.calls-bounded")
def test_one_link_cannot_leave_any_number_of_calls_open_at_another_machine(target: Target) -> None:
    before = target.state()
    answers: list[Any] = []
    for _ in range(LINK_CALLS_OPEN_MAX + 5):
        answers += target.call(LOCAL, "status", on="build")
    assert len(answers) == 5
    for answer in answers:
        check_sentence(answer)
    assert target.state() == before


@proves("node.calls-bounded")
def test_whoever_hangs_up_ends_the_stream_at_the_other_machine_too(target: Target) -> None:
    target.call(LOCAL, "watch", {"run": "x"}, on="build")
    effects = target.frame(LOCAL, Type.CLOSE, b"", target._channel)
    frames = [e.frame for e in effects if isinstance(e, ev.Send) and e.link == MEMBER]
    assert any(frame[1] == Type.CLOSE for frame in frames)


@proves("node.agent-events-bounded")
def test_no_event_of_an_agent_ends_the_machine(target: Target) -> None:
    """Floats, huge texts, deep nesting, foreign keys: an agent says what it likes."""
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    fields: list[dict[str, Any]] = [
        {"a": 0.5}, {"a": {"b": [0.5, float("nan")]}}, {"a": deep}, {"a": 2**70}, {"a": "\ud800"},
        {"a": "x" * 1_000_000}, {"a": ["x" * 10_000] * 100}, {"é": 1}, {"task": "other", "epoch": "x"},
        {"a": b"bytes"}, {"a": object()}, {"a": {"b": {1: 2}}}, {}, {"a": None},
    ]  # fmt: skip
    for each in fields:
        target.step(AttemptEvent("t1", (1, 1), "agent.output", each))
        target.step(AttemptEvent("t1", (1, 1), "agent.tool", each, "\x1b[2J"))
        target.step(AttemptEvent("t1", (1, 1), "Not A Kind", each))
    ended = attempt_ended(
        "t1", NO_EPOCH, "done", summary="\ud800" * 9, values={"x": "y" * 100_000, "\ud800": ""},
        artefacts=("\udcff.txt", "a" * 100_000), usage={"n": 2**70},
    )  # fmt: skip
    target.step(ended)
    target.step(ev.Tick())
    assert target.call(LOCAL, "status")[0]["ok"]
    bodies = [
        e.body
        for s in target.store.log.streams()
        if s.scope != FLEET
        for e in target.store.log.slice(s, 0)
    ]
    assert all(b"other" not in (body or b"") for body in bodies), "a task speaks for itself only"


@proves("node.stranger-enrols-only")
def test_a_stranger_that_goes_on_asking_is_cut_and_fills_no_log(target: Target) -> None:
    effects: list[ev.Effect] = []
    for _ in range(300):
        effects += target.frame(STRANGER, Type.CALL, b'{"verb":"status"}', 7)
    assert any(isinstance(e, ev.Cut) and e.link == STRANGER for e in effects)
    assert sum(isinstance(e, ev.Note) for e in effects) <= NOTES_PER_MINUTE_MAX


@proves("node.channels-apart")
def test_two_machines_never_begin_conversations_under_the_same_number(target: Target) -> None:
    def begun(me: str, peer: str) -> set[int]:
        return {next(numbers) for _ in range(50)} if (numbers := channels(me, peer)) else set()

    assert not begun(STUDIO.machine, BUILD.machine) & begun(BUILD.machine, STUDIO.machine)
    # A link that stands is asked whether it answers, so some of them are taken.
    mine = target.core.links[MEMBER].numbers
    assert {next(mine) for _ in range(10)} < begun(STUDIO.machine, BUILD.machine)
