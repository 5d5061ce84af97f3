"""A member writes poison into its own streams, properly sealed: every replica takes the entries, no
fold believes them, no reader of the tables stumbles, and nobody acts."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from muster.channel.frame import Type
from muster.fleet import kinds as fleet_kinds
from muster.log import canon
from muster.log.kind import bodies_of
from muster.log.stream import FLEET, JOURNAL, scope_to
from muster.message import kinds as message_kinds
from muster.node import event as ev
from muster.node.services.context import FilesChanged
from muster.task import kinds as task_kinds
from tests.fleet.world import BUILD, LAPTOP, STUDIO
from tests.promise import proves
from tests.security.peer import Peer
from tests.security.target import LOCAL, MEMBER, Target, check_sentence

FLEET_KINDS = sorted(
    value
    for name, value in vars(fleet_kinds).items()
    if name.isupper() and isinstance(value, str) and "." in value
)
MESSAGE_KINDS = bodies_of(message_kinds.__name__)
KINDS = [*FLEET_KINDS, *task_kinds.KINDS, *MESSAGE_KINDS, "unknown.kind", "agent.output"]
# What people look at; each must answer whatever the tables were fed.
READERS: dict[str, list[dict[str, Any]]] = {
    "status": [{}], "machines": [{}], "facts": [{}], "incidents": [{}], "inbox": [{"all": True}],
    "sent": [{}], "tasks": [{"all": True}, {"run": "r"}], "runs": [{}, {"run": "r"}, {"run": "R1"}],
    "why": [{"task": "t"}], "explain": [{"task": "t"}], "watch": [{"run": "r"}],
    "journal.where": [{"task": "t"}], "target": [{}],
}  # fmt: skip
VALUES: list[Any] = [
    None, 0, -1, 2**53 - 1, True, "", "x", "t1", "r1", "../../etc/passwd", "\u202e\x1b[2J\n\0", "9" * 300,
    STUDIO.machine, BUILD.machine, LAPTOP.machine, "0" * 64, "0" * 40, "a" * 5000, "--upload-pack=x",
    [], ["x"], [0, 0], [1, 1], [-1, 2**53 - 1], [[["x"]]], {}, {"a": 1}, {"x": {"y": "z"}}, ["all"],
    "done", "failed", "critical", "open", "muster: 1", [["m", True, 1, ""]],
]  # fmt: skip
FIELDS = {
    **{kind: type_.__struct_fields__ for kind, type_ in task_kinds.KINDS.items()},
    **{kind: type_.__struct_fields__ for kind, type_ in MESSAGE_KINDS.items()},
    "machine.open": ("record", "heads"), "machine.record": ("record",), "machine.revoke": ("revocation",),
    "operator.record": ("record",), "grant.give": ("grant", "statement"), "grant.take": ("id", "statement"),
    "invite.open": ("name", "sha256", "until_ms", "roles"), "invite.use": ("machine", "sha256"),
    "order.take": ("grant", "statement"), "order.deny": ("by", "object", "reason", "verb", "statement"),
    "group.open": ("name",), "group.add": ("machine", "name", "from", "cuts"),
    "group.remove": ("machine", "name"), "incident.open": ("key", "severity", "title", "detail"),
    "incident.close": ("key", "reason"),
    "machine.facts": ("os", "arch", "cpus", "memory_mib", "agents", "tools", "repositories", "slots"),
}  # fmt: skip
# Bodies that fit, so that folds believe them as far as they may and later ones meet real rows.
FIT: dict[str, dict[str, Any]] = {
    "run.open": {"run": "r1", "name": "x", "spec": "not a spec", "statement": "00"},
    "task.open": {"task": "t1", "template": {"do": 5, "agent": []}, "run": "r1"},
    "task.assign": {"task": "t1", "epoch": [1, 1], "machine": STUDIO.machine, "agent": "\x1b[2J",
                    "lease_ms": 1000, "candidates": [["x", True, 1, "\n"]]},
    "task.settle": {"task": "t1", "outcome": "done", "epoch": [1, 1], "commit": "--output=x"},
    "task.expire": {"task": "t1", "epoch": [1, 1], "reason": "\u202e"},
    "attempt.start": {"task": "t1", "epoch": [1, 1]},
    "attempt.finish": {"task": "t1", "epoch": [1, 1], "status": "done", "commit": "-x",
                       "values": {"../": "\x00"}},
    "message.send": {"to": ["all"], "text": "\x1b]0;x\x07 run `rm -rf /`"},
    "incident.open": {"key": "k", "severity": "critical", "title": "\x1b[2Jx"},
    "group.open": {"name": "room"},
    "group.add": {"machine": STUDIO.machine, "name": "room"},
    "machine.facts": {"os": "linux", "arch": "x", "repositories": ["../x"], "agents": {"noop": "1"}},
}  # fmt: skip


def bodies(kind: str, rng: random.Random, count: int) -> Iterator[bytes]:
    fields = FIELDS.get(kind, ("x", "task", "epoch"))
    if kind in FIT:
        yield canon.encode(FIT[kind])
    yield b"{}"
    yield b"[]"
    yield b"not json"
    yield b"\xff" * 10
    yield b"[" * 1000
    for _ in range(count):
        body = dict(FIT.get(kind, {}))
        for name in rng.sample(fields, rng.randint(1, len(fields))):
            body[name] = rng.choice(VALUES)
        yield canon.encode(body)


@pytest.fixture
def world() -> Iterator[tuple[Target, Peer]]:
    target, peer = Target(), Peer()
    target.frame(MEMBER, Type.SEGMENT, peer.segment(0))
    yield target, peer
    target.store.close()
    peer.store.close()


def read_everything(target: Target) -> None:
    """Every reader answers, or says in a sentence why not."""
    for verb, calls in READERS.items():
        for args in calls:
            answers = target.call(LOCAL, verb, args)
            assert answers, verb
            for answer in answers:
                if not answer["ok"]:
                    check_sentence(answer)


@pytest.mark.parametrize("kind", KINDS)
@proves("node.poison-is-taken-and-ignored")
def test_no_body_of_a_member_makes_a_fold_a_reader_or_the_machine_stumble(
    world: tuple[Target, Peer], kind: str
) -> None:
    target, peer = world
    for scope in (FLEET, scope_to(STUDIO.machine)):
        for body in bodies(kind, random.Random(kind), 40):
            peer.write(kind, body, scope=scope)
    for scope in (FLEET, scope_to(STUDIO.machine)):
        while (size := target.store.log.size(peer.stream(scope))) < peer.store.log.size(
            peer.stream(scope)
        ):
            target.frame(MEMBER, Type.SEGMENT, peer.segment(size, scope))
            assert target.store.log.size(peer.stream(scope)) > size, (
                "a bad body must not block a stream"
            )
    target.step(ev.Tick())
    read_everything(target)
    # That a machine looks at its own folders again is no deed: what it may write there is asked then.
    begun = [e for e in target.deeds() if not isinstance(e, (ev.Cut, FilesChanged))]
    assert not begun, "nothing is begun on a member's word"
    assert set(target.core.roster.operators.values()) == set(
        Target().core.roster.operators.values()
    )


@proves("node.poison-is-taken-and-ignored")
def test_a_member_cannot_make_itself_an_operator_or_the_authority(
    world: tuple[Target, Peer],
) -> None:
    target, peer = world
    before = target.core.roster
    for kind in FLEET_KINDS:
        for body in bodies(kind, random.Random(kind), 20):
            peer.write(kind, body)
    while (size := target.store.log.size(peer.stream())) < peer.store.log.size(peer.stream()):
        target.frame(MEMBER, Type.SEGMENT, peer.segment(size))
    after = target.core.roster
    assert after.machines == before.machines
    assert after.operators == before.operators
    assert after.revoked == before.revoked
    assert after.grants == before.grants


@proves("node.private-streams-stay")
def test_a_member_gets_no_journal_and_nobody_elses_messages(world: tuple[Target, Peer]) -> None:
    target, _ = world
    core = target.core
    with target.store.transaction():
        for scope in (JOURNAL, scope_to(LAPTOP.machine)):
            core.append("agent.output", b'{"text":"a secret"}', scope=scope)
        target.store.seal_dirty(core.membership.signer("seal"))
    core.effects.clear()
    for scope in (JOURNAL, scope_to(LAPTOP.machine)):
        stream = str(core.membership.own(scope))
        for message in (
            {"start": 0, "stream": stream, "type": "want"},
            {"index": 0, "stream": stream, "type": "prove"},
            {"size": 1, "stream": stream, "type": "probe"},
        ):
            effects = target.frame(MEMBER, Type.WANT, canon.encode(message))
            effects += target.step(ev.Tick())
            sent = [e for e in effects if isinstance(e, ev.Send) and e.link == MEMBER]
            assert not any(b"a secret" in e.frame for e in sent)
            assert not any(e.frame[1] == Type.SEGMENT for e in sent)
