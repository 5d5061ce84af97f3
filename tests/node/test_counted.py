"""What is counted is caused: each of these counters grows by exactly what happened.

Those that another test causes anyway are asserted there; `python -m tests.counters` finds both.
"""

import asyncio
import errno
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.counters import grows
from tests.node.cores import WALL_MS, Cores
from tests.promise import proves

from muster.channel.frame import Type
from muster.errors import Denied, Exhausted, Forged, Malformed, Unreachable
from muster.git.fence import Update
from muster.limits import (
    BRANCHES_LOOKED_FOR_MAX,
    LIVES_PER_MINUTE_MAX,
    NOTES_PER_MINUTE_MAX,
    STRANGER_CALLS_MAX,
)
from muster.log import seal as seals
from muster.log import wire
from muster.log.entry import EntryId
from muster.log.stream import FLEET, Incarnation, MachineId, StreamName, scope_to
from muster.node import daemon as daemons
from muster.node import doorway
from muster.node import event as ev
from muster.node.attempts import blob_transfer, effect_runner
from muster.node.attempts.sandbox import AttemptSandbox
from muster.node.core import Core
from muster.node.counter import Counts
from muster.node.engine import server
from muster.node.host.ending import Ending
from muster.node.incarnations.lives import Lives
from muster.node.incarnations.own_incarnation import OwnIncarnation, ShutOut
from muster.node.links import foreign, paths, posts, relay, ssh
from muster.node.links.place import Place
from muster.node.links.wakers import Wakers
from muster.node.replica.forks import Forks
from muster.node.services.peer_asks import PeerAsks
from muster.node.services.peer_files import PeerFiles
from muster.node.services.search import Search
from muster.node.services.sleepers import WakeUp
from muster.node.supervisor import Supervisor
from muster.node.tasks import worker as workers
from muster.node.tasks.attempt_body import AttemptEvent
from muster.node.tasks.branches import Branches
from muster.node.tasks.elections import Elected, Elections
from muster.node.tasks.worker import WorkerService
from muster.store.blobs import Blobs
from muster.task import kinds
from muster.task.artefact import Artefact
from muster.task.causes import Unproven
from muster.verbs import git

TASK = "a1" * 16


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    return world


@pytest.fixture
def core() -> Any:
    """What counts, where nothing else of a core is needed."""
    return SimpleNamespace(counters=Counts())


# --- what others say ------------------------------------------------------------------------


@proves("node.counters-are-caused")
@pytest.mark.parametrize(
    "name", ["cosign-of-unknown-stream", "cosign-of-unknown-machine", "cosign-of-another-branch"]
)
def test_a_cosign_of_nothing_that_is_here_is_counted_by_what_it_lacks(world, name):
    hub, studio = world["hub"].core, world["studio"].core
    held = hub.membership.own(FLEET)
    stream, by = held, world["hub"].identity
    if name.endswith("stream"):
        stream = held._replace(incarnation=Incarnation("f" * 32))
    elif name.endswith("machine"):
        by = Cores("x", "y", "z")["z"].identity
    made = seals.make_cosign(
        hub.membership.fleet, stream, studio.log.size(held), b"\1" * 32, by.machine, "seen",
        by.signer("seen"), WALL_MS // 1000,
    )  # fmt: skip
    raw = wire.encode(wire.Cosigns([made.note.decode()]))
    with grows(studio, name):
        world["studio"].step(ev.Arrived(studio.link_to(hub.machine), Type.OFFER, 0, raw))


@proves("node.counters-are-caused")
def test_each_entry_that_is_taken_is_counted(world):
    hub, counters = world["hub"], world["studio"].core.counters
    before, here = hub.own_size, counters["entries-taken"]
    assert hub.order("send", "all", {"text": "hi", "to": "all"})["ok"]
    world.pass_ms(1_000)
    assert counters["entries-taken"] - here == hub.own_size - before > 0


@proves("node.counters-are-caused")
def test_a_link_that_proved_no_machine_is_cut_once(world):
    hub = world["hub"]
    link = world.stranger("hub")
    for _ in range(STRANGER_CALLS_MAX):
        hub.call("status", {}, link)
    with grows(hub.core, "strangers-cut"):
        for _ in range(3):
            hub.call("status", {}, link)


@proves("node.counters-are-caused")
def test_a_revocation_that_is_none_is_counted(world):
    hub = world["hub"].core
    with grows(hub, "revocations-forged"):
        hub.part(OwnIncarnation).shut_out(ShutOut("no revocation"))


@proves("node.counters-are-caused")
def test_a_push_that_the_fence_refuses_is_counted(world):
    hub = world["hub"].core
    move = Update("refs/heads/main", "0" * 40, "a" * 40)
    push = git.Push(peer=world["studio"].id, updates=[move], repo="main")
    with grows(hub, "push-refused"), pytest.raises(Denied):
        git.may_push(hub, Any, push)


# --- work -------------------------------------------------------------------------------------


@proves("node.counters-are-caused")
def test_an_assignment_of_what_nobody_opened_is_counted(world):
    hub, studio = world["hub"].core, world["studio"].core
    assign = kinds.TaskAssign(TASK, (1, 1), studio.machine, "shell", 30_000)
    with grows(studio, "assignment-without-opening"):
        with hub.store.transaction():
            hub.append("task.assign", kinds.body_bytes(assign))
            hub.store.seal_dirty(hub.membership.signer("seal"))
        world.pass_ms(1_000)


@proves("node.counters-are-caused")
def test_each_task_that_a_machine_refuses_because_it_leaves_is_counted(world):
    studio = world["studio"]
    world.pass_ms(3_000)
    studio.core.part(WorkerService).drains.add("somebody")
    world["hub"].submit(agent=["shell"], do="true", needs={"machine": "studio"})
    world.pass_ms(1_000)
    refusals = [e for e in studio.entries("attempt.refuse") if b'"leaving"' in e.body]
    assert studio.core.counters["assignments-while-leaving"] == len(refusals) > 0


@proves("node.counters-are-caused")
def test_an_event_of_an_attempt_without_a_form_is_counted(world, monkeypatch):
    studio = world["studio"]

    def none(_event: AttemptEvent) -> bytes:
        raise Malformed("it has no form")

    monkeypatch.setattr("muster.node.tasks.attempt_body.event_body", none)
    with grows(studio.core, "events-of-no-form"):
        studio.step(AttemptEvent(TASK, (1, 1), "agent.output", {}))


@proves("node.counters-are-caused")
def test_a_branch_beyond_those_that_are_looked_for_is_counted(world):
    hub = world["hub"].core
    branches = hub.part(Branches)
    for number in range(BRANCHES_LOOKED_FOR_MAX):
        branches.look_for(f"{number:032x}")
    with grows(hub, "branches-not-looked-for"):
        branches.look_for(TASK)


@proves("node.counters-are-caused")
def test_an_election_is_counted_once_however_often_it_is_told(world):
    hub = world["hub"].core
    elections = hub.part(Elections)
    elections._sought["studio"] = None  # type: ignore[assignment]
    with grows(hub, "elected"):
        for until_ms in (0, 5, 6):
            elections._on_elected(Elected("studio", 1, until_ms, until_ms))


# --- the daemon ---------------------------------------------------------------------------------


@proves("node.counters-are-caused")
def test_a_line_that_is_one_too_many_for_its_minute_is_counted(world):
    hub = world["hub"].core
    hub._noted.clear()
    for _ in range(NOTES_PER_MINUTE_MAX):
        hub.note("a line")
    with grows(hub, "notes-unwritten"):
        hub.note("one more")


@proves("node.counters-are-caused")
def test_a_daemon_that_was_cut_off_is_counted_by_the_next_one(tmp_path: Path):
    counters = Counts()
    Ending(tmp_path / "cut-off").count(counters)
    assert counters["ended-cut-off"] == 0
    (tmp_path / "cut-off").write_text("")
    Ending(tmp_path / "cut-off").count(counters)
    assert counters["ended-cut-off"] == 1


@proves("node.counters-are-caused")
def test_a_frame_for_a_stream_that_ended_is_counted(core):
    known = iter((True, False))
    streams = SimpleNamespace(feed_late=lambda *_: next(known))
    daemon: Any = SimpleNamespace(core=core, streams=streams)
    with grows(core, "frames-after-a-stream"):
        for _ in range(2):
            daemons.Daemon._stray(daemon, ev.Stray(1, Type.DATA, 7, b""))


@proves("node.counters-are-caused")
def test_each_start_of_the_door_is_counted_and_each_bad_end(core):
    codes = iter((0, 1))

    async def lives(_listening: Any) -> int:
        return next(codes)

    told: list[str] = []
    door: Any = SimpleNamespace(
        _core=core, _live=lives, _failed=0, _last="", _tell=told.append,
        _backoff=SimpleNamespace(lost=lambda ms: ms),
    )  # fmt: skip
    with grows(core, "door-started", 2), grows(core, "door-failed", 2):
        for _ in range(2):
            asyncio.run(doorway.Doorway._door(door, None))  # type: ignore[arg-type]


@proves("node.counters-are-caused")
def test_mailboxes_that_the_server_does_not_keep_are_counted_at_each_look(core):
    looks = iter((Unreachable("no"), Unreachable("no"), asyncio.CancelledError()))

    async def look(_state: Any) -> None:
        raise next(looks)

    serving: Any = SimpleNamespace(_core=core, _look_after=look)

    async def drive() -> None:
        with pytest.raises(asyncio.CancelledError):
            await server.Engine._look_for_ever(serving, SimpleNamespace(why=""))

    with pytest.MonkeyPatch.context() as patch, grows(core, "nats-boxes-not-kept", 2):
        patch.setattr(server, "_ROSTER_S", 0)
        asyncio.run(drive())


@proves("node.counters-are-caused")
def test_who_does_not_prove_itself_through_sshd_is_counted_and_cut(core, monkeypatch):
    errors = iter((Denied("it is revoked"), Unreachable("it hung up")))
    ended: list[int] = []
    monkeypatch.setattr(ssh.os, "kill", lambda pid, _signal: ended.append(pid))
    monkeypatch.setattr(ssh.Path, "read_text", lambda *_, **__: "sshd-session\n")

    async def prove(_peer: str) -> None:
        raise next(errors)

    opened = SimpleNamespace(open=lambda *_, **__: SimpleNamespace(prove=prove))
    entry: Any = SimpleNamespace(
        _channel=opened, _unproven=0, _daemon=SimpleNamespace(core=core),
        _cut=lambda sshd: ssh.SshDoor._cut(entry, sshd),
    )  # fmt: skip
    stream: Any = SimpleNamespace(accept=lambda: None, flow=None)
    refused = grows(core, "ssh-refused-denied"), grows(core, "ssh-refused-unreachable")
    with refused[0], refused[1], grows(core, "ssh-cut"):
        for _ in range(2):
            asyncio.run(ssh.SshDoor._visited(entry, stream, 4321))
    assert ended == [4321]


@proves("node.counters-are-caused")
def test_a_machine_that_cannot_be_woken_is_counted(world):
    hub, studio = world["hub"], world["studio"]
    tasks: list[Any] = []
    daemon: Any = SimpleNamespace(
        core=hub.core, supervisor=SimpleNamespace(run=lambda _name, work: tasks.append(work))
    )
    Wakers(daemon).on_wake_up(WakeUp(studio.id))
    with grows(hub.core, "wakes-failed-unreachable"):
        asyncio.run(tasks.pop())


# --- work that the daemon does beside ---------------------------------------------------------


@proves("node.counters-are-caused")
def test_a_seal_that_does_not_follow_the_one_that_was_seen_is_counted():
    world = Cores("hub", "studio", "bad")
    world.link("hub", "studio")
    world.link("hub", "bad")
    world.pass_ms(4_000)
    bad, studio = world["bad"].core, world["studio"].core
    private = scope_to(world["hub"].id)

    def write() -> None:
        with bad.store.transaction():
            bad.append("note.x", b"{}", scope=private)
            bad.store.seal_dirty(bad.membership.signer("seal"))

    write()
    world.pass_ms(2_000)
    stream = bad.membership.own(private)
    world.cut("bad")
    write()
    note = bad.store.log.latest_seal(stream).note.decode()
    offer = wire.Offer([wire.Head(str(stream), 2, note, 1, ["00" * 32])])
    link = studio.link_to(world["hub"].id)
    with grows(studio, "seal-contradicts-what-was-seen"):
        world["studio"].step(ev.Arrived(link, Type.OFFER, 0, wire.encode(offer)))


@proves("node.counters-are-caused")
def test_a_stream_of_a_revoked_machine_of_which_nothing_is_here_is_counted(world):
    hub, forgotten = world["hub"].core, list[StreamName]()
    stream = hub.membership.own(FLEET)
    forks: Any = SimpleNamespace(
        counters=hub.counters, membership=SimpleNamespace(roster=SimpleNamespace(cut=lambda _: 0)),
        store=SimpleNamespace(log=SimpleNamespace(size=lambda _: 0), drop=lambda _: True),
        sync=SimpleNamespace(forget=forgotten.append),
    )  # fmt: skip
    with grows(hub, "streams-forgotten"):
        assert Forks._bury(forks, stream, WALL_MS, []) == 0
    assert forgotten == [stream]


@proves("node.counters-are-caused")
def test_blobs_that_a_start_removes_are_counted(core, tmp_path, monkeypatch):

    async def nothing(*_: Any) -> Any:
        return "/bin"

    for name in ("person_path", "left_behind"):
        monkeypatch.setattr(effect_runner, name, nothing)
    monkeypatch.setattr(effect_runner.served, "clear", lambda _home: None)
    monkeypatch.setattr(effect_runner, "blobs_gone", lambda *_: "lost")
    blobs = Blobs(tmp_path)
    for number in range(3):
        blobs.put(bytes([number]))
    machine = SimpleNamespace(blobs=blobs, doubts=(), config=SimpleNamespace(path=""))
    hands: Any = SimpleNamespace(
        daemon=SimpleNamespace(core=core, machine=machine, home=None, post=print),
        repos=tmp_path, worktrees=SimpleNamespace(clear=nothing), mirrors=SimpleNamespace(prepare=lambda: None),
    )  # fmt: skip
    with grows(core, "blobs-swept", 3):
        asyncio.run(effect_runner.EffectRunner.prepare(hands))


@proves("node.counters-are-caused")
def test_each_refusal_of_the_proxy_is_counted_and_nothing_that_it_let_through(core):
    daemon = SimpleNamespace(core=core)
    served: Any = SimpleNamespace(_daemon=daemon, _tell=lambda *_, **__: None)
    about: dict[str, Any] = dict.fromkeys(
        ("host", "port", "why", "sent_bytes", "received_bytes", "ms")
    )
    with grows(core, "egress-refused", 3):
        for allowed in (True, False):
            what: Any = SimpleNamespace(**about, allowed=allowed, times=3)
            AttemptSandbox._reached(served, what)


@proves("node.counters-are-caused")
def test_a_door_of_another_fleet_that_is_away_is_counted(core):

    async def away(_place: Any) -> Any:
        raise Unreachable("nobody answers")

    tried: list[Any] = []
    links: Any = SimpleNamespace(dial=away, _core=core, _daemon=SimpleNamespace(post=tried.append))
    backoff: Any = SimpleNamespace(lost=lambda _ms: 1_000)
    with grows(core, "foreign-unreachable"):
        asyncio.run(foreign.ForeignLinks._try(links, ("fleet", "door"), backoff, 0.0))
    assert len(tried) == 1


@proves("node.counters-are-caused")
def test_a_parcel_is_counted_when_it_lies_there_and_what_failed_by_its_error(core):
    errors = iter((Unreachable("away"), None))

    async def put(_raw: bytes, *, to: str) -> None:
        if error := next(errors):
            raise error

    async def rest(*_: Any) -> None:
        """At once."""

    parts: Any = SimpleNamespace(
        part=lambda _: SimpleNamespace(box=lambda _: (None, True)), counters=core.counters
    )
    place: Any = SimpleNamespace(
        core=parts, post=SimpleNamespace(put=put), _rest=rest, _worked=lambda *_: None
    )
    box: Any = SimpleNamespace(number=1, peer="studio")
    with grows(core, "parcels-left"):
        assert asyncio.run(Place._put(place, box, b""))
    posts_of: Any = SimpleNamespace(_core=core)
    with grows(core, "place-unread-unreachable"):
        posts.Mailboxes._survived(posts_of, "unread", Unreachable("away"))


@proves("node.counters-are-caused")
def test_a_relay_that_comes_to_nothing_is_counted_on_either_side(world, monkeypatch):
    hub, studio = world["hub"].core, world["studio"].core

    async def fails(*_: Any) -> None:
        raise Denied("it is not let in")

    async def heard(*_: Any) -> None:
        """At once."""

    monkeypatch.setattr(paths, "_heard", heard)
    over = iter((False, True))
    ways: Any = SimpleNamespace(
        _core=hub, _news=None, _relays=SimpleNamespace(keep=fails), _needs_relay=lambda _: True,
        ways=lambda _: (), climb=lambda _: SimpleNamespace(ours=None),
        shut_out=lambda _: next(over),
    )  # fmt: skip
    with grows(hub, "relay-denied"):
        asyncio.run(paths.Cascade._keep_relayed(ways, studio.machine))
    link = SimpleNamespace(prove=fails)
    relays: Any = SimpleNamespace(
        _daemon=SimpleNamespace(core=hub), _own_link=lambda _: "b" * 64, _asking=(),
        channel=SimpleNamespace(open=lambda *_, **__: link),
    )  # fmt: skip
    call: Any = SimpleNamespace(args={"from": studio.machine})
    stream: Any = SimpleNamespace(accept=lambda: None, flow=None)
    with grows(hub, "relays-unproven"):
        asyncio.run(relay.Relays.serve(relays, call, stream))


# --- where one name is counted in several places ------------------------------------------------


@proves("node.counters-are-caused")
@pytest.mark.parametrize("by", ["link", "mailbox"])
@pytest.mark.parametrize(
    ("error", "name"),
    [(Forged("other bytes"), "blob-forged"), (Unreachable("away"), "blob-not-there")],
)
def test_each_that_gives_no_blob_is_counted(monkeypatch, by, error, name):
    counted: Any = SimpleNamespace(
        counters=Counts(), log=SimpleNamespace(entry=lambda _: None), leads=set, machine="d",
        membership=SimpleNamespace(name_of=str),
        links={1: SimpleNamespace(peer="a" * 64)} if by == "link" else {},
    )  # fmt: skip

    async def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(blob_transfer, "_bring_from", fails)
    monkeypatch.setattr(blob_transfer, "_kept", fails)
    boxes = [] if by == "link" else [("b" * 64, 7)]
    left = SimpleNamespace(boxes=lambda _: boxes, bring=fails)
    machine = SimpleNamespace(blobs=SimpleNamespace(claims=lambda _: ()))
    daemon: Any = SimpleNamespace(
        core=counted, machine=machine, mailboxes=SimpleNamespace(blobs=left)
    )
    source = blob_transfer.Source(Artefact("a", "0" * 64, 1), EntryId(bytes(32)), MachineId("c"))
    with grows(counted, name), pytest.raises(type(error)):
        asyncio.run(blob_transfer.bring(daemon, source))


@proves("node.counters-are-caused")
def test_what_a_gateway_counts_is_counted_under_its_own_name(core):
    served: Any = SimpleNamespace(_daemon=SimpleNamespace(core=core))
    with grows(core, "gateway-crowded"):
        AttemptSandbox._count(served, "gateway-crowded")


@proves("node.counters-are-caused")
def test_a_frame_that_fails_without_anybodys_fault_is_counted_by_its_error(world):
    hub, link = world["hub"], world["hub"].core.link_to(world["studio"].id)

    def fails(*_: Any) -> None:
        raise Unreachable("not now")

    hub.core.frames[Type.OFFER] = fails
    with grows(hub.core, "failed-unreachable"):
        hub.step(ev.Arrived(link, Type.OFFER, 0, b""))


@proves("node.counters-are-caused")
def test_parts_that_always_want_more_are_cut_short_once_a_step(core):
    part = SimpleNamespace(dirty=True, name="restless")

    def again(*_: Any) -> None:
        part.dirty = True

    part.flush = again
    core.settled, core._flushed, core._told = True, [part], deque()
    core.guard = SimpleNamespace(run=again)
    with grows(core, "steps-cut-short"):
        assert Core._flush(core)


@proves("node.counters-are-caused")
def test_a_word_over_a_link_that_said_too_many_is_counted_before_it_is_read(world):
    hub = world["hub"].core
    link, lives = hub.links[hub.link_to(world["studio"].id)], hub.part(Lives)
    lives._budget[link.id] = deque([hub.now.boot_ms] * LIVES_PER_MINUTE_MAX)
    with grows(hub, "lives-dropped"):
        lives.heard(link, "no word at all")


@proves("node.counters-are-caused")
def test_a_file_that_its_disk_refused_is_counted(core):
    answers = SimpleNamespace(answer=lambda *_: None)
    core.part, core.roster = lambda _: answers, SimpleNamespace(peers={"acme"})
    piece = SimpleNamespace(link=1, channel=7, file=SimpleNamespace(of="acme"))
    event: Any = SimpleNamespace(
        piece=piece, why="the disk is full", at=0, whole=False, fresh=False
    )
    with grows(core, "peer-files-refused"):
        PeerFiles._taken(SimpleNamespace(_core=core), event)  # type: ignore[arg-type]


@proves("node.counters-are-caused")
def test_an_index_of_texts_that_fails_is_counted_each_time(core):
    def fails() -> None:
        raise Exhausted("no room")

    search: Any = SimpleNamespace(
        _core=core, advance=fails, _check_log=lambda: None,
        index=SimpleNamespace(make_anew=lambda: None),
    )  # fmt: skip
    with grows(core, "index-failed"):
        assert Search.now(search, lambda: 1, 0) == 0
    with grows(core, "index-made-anew-damaged"):
        Search.damaged(search)


@proves("node.counters-are-caused")
def test_what_fits_into_no_parcel_is_counted(core):
    def write(*_: Any) -> bytes:
        raise Malformed("it is too large")

    class Box(list[str]):
        peer = "studio"

        def items(self) -> list[Any]:
            self.clear()
            return []

    box: Any = Box(["one"])
    place: Any = SimpleNamespace(core=core, desk=SimpleNamespace(write=write))
    with grows(core, "post-malformed"):
        asyncio.run(Place._leave(place, box))


@proves("node.counters-are-caused")
def test_a_receipt_that_is_none_for_what_was_asked_is_counted(core):
    row = SimpleNamespace(fleet="f" * 64, door="d" * 64, letter="a" * 64)
    core.tables = SimpleNamespace(rows=lambda *_, **__: [row])
    core.machine, core.settled, core.membership = "m", True, SimpleNamespace(fleet="e" * 64)
    asks: Any = SimpleNamespace(_core=core, is_settled=lambda _: False)
    event: Any = SimpleNamespace(letter="a" * 64, receipt="none", record="none")
    with grows(core, "receipts-refused"):
        PeerAsks._settled(asks, event)


@proves("node.counters-are-caused")
def test_an_assignment_without_evidence_is_counted_by_what_it_lacks(world, monkeypatch):
    def lacks(*_: Any, **__: Any) -> None:
        raise Unproven("lies-about-it", "it lies")

    studio = world["studio"].core
    world.pass_ms(3_000)
    monkeypatch.setattr(workers.evidence, "check_evidence", lacks)
    with grows(studio, "unproven-lies-about-it"):
        service = studio.part(WorkerService)
        assert isinstance(service._check(world["hub"].entries("machine.record")[0]), Unproven)


@proves("node.counters-are-caused")
def test_a_round_without_a_descriptor_left_is_counted_and_ends_alone():
    counted: Any = SimpleNamespace(counters=Counts())
    supervisor = Supervisor(counted.counters, pytest.fail, pytest.fail)

    async def attempt() -> None:
        async with supervisor.attempt("look"):
            raise OSError(errno.EMFILE, "too many open files")

    with grows(counted, "background-look-exhausted"):
        asyncio.run(attempt())
