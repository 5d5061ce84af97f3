"""Every reader of others' bytes: valid messages to start from, and what must hold for any bytes.

A door takes bytes and says whether they were accepted. It may raise what stands in errors.py, and
nothing else. The doors through a whole core also check that refused bytes changed nothing.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from muster.channel import frame as frames
from muster.channel.flow import Flow
from muster.channel.frame import Type
from muster.errors import Malformed, MusterError
from muster.fleet import certificate
from muster.fleet import join as joining
from muster.fleet.capability import read_token
from muster.fleet.grant import Grant, sign_give
from muster.fleet.invite import read_invite, write_invite
from muster.fleet.record import (
    open_binding,
    open_operator,
    open_record,
    open_revocation,
    sign_binding,
    sign_revocation,
)
from muster.fleet.statement import open_statement
from muster.git.fence import Epoch as FenceEpoch
from muster.git.fence import repository_name
from muster.limits import CALL_BYTES_MAX
from muster.log import canon, note, seal, segment, wire
from muster.log import entry as entries
from muster.log import fork as forks
from muster.log.stream import StreamName
from muster.node import event as ev
from muster.node.call import arguments
from muster.node.call.answers import Request
from muster.task.check import check as check_spec
from muster.verbs.table import VERBS
from tests.fleet.world import (
    ADDRESS,
    ALICE,
    AUTHORITY,
    BUILD,
    BUILD_RECORD,
    FLEET_ID,
    LAPTOP,
    NOW,
    operator,
)
from tests.fuzz.mutation import mutated
from tests.security.peer import Peer
from tests.security.target import LOCAL, MEMBER, STRANGER, Target
from tests.task.fuzz_spec import EXAMPLES
from tests.task.fuzz_spec import probe as probe_spec

STATE_CHECK_EVERY = 50


class Door(NamedTuple):
    """`read` raises MusterError for what it refuses; `good` are messages it takes."""

    name: str
    good: list[bytes]
    read: Callable[[bytes], object]


def _statement(verb: str = "run") -> bytes:
    target = Target.__new__(Target)
    target.rng, target.now = random.Random(3), type("Now", (), {"wall_ms": NOW})()
    return target.order(verb, "x", {"a": 1}).encode()


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda raw: read(raw.decode("utf-8", "replace"))


def _fork() -> tuple[bytes, bytes]:
    """A genuine proof: one machine, two branches."""
    one, other = Peer(), Peer()
    stream = one.stream()
    branches = []
    for peer, text in ((one, b'{"a":1}'), (other, b'{"a":2}')):
        peer.write("some.kind", text)
        found = peer.store.log.seal_of(stream)
        assert found is not None
        proof = peer.store.log.inclusion(stream, 1, 2)
        header = peer.store.log.entry_at(stream, 1).raw.decode()
        branches.append(forks.Branch(found.note.decode(), header, [h.hex() for h in proof]))
    return forks.make_fork(stream, 1, branches[0], branches[1]), forks.encode_branch(
        branches[0]
    ).encode()


def documents() -> Iterator[Door]:
    """Signed documents, invites, tokens and names."""
    grant = Grant("x", BUILD.machine, NOW + 10**6, "send")
    give = sign_give(ALICE.statement, FLEET_ID, grant, nonce=bytes(16), issued_ms=NOW)
    binding = sign_binding(LAPTOP, FLEET_ID, "laptop")
    invite = write_invite(FLEET_ID, bytes(16), ADDRESS)
    join = joining.sign_join(LAPTOP, read_invite(invite), "laptop")
    certificates = certificate.issue(AUTHORITY, BUILD_RECORD, NOW)
    revocation = sign_revocation(
        AUTHORITY, of="machine", key=BUILD.machine, name="build", cuts={}, reason="x", issued_ms=NOW
    )
    yield Door("statement", [_statement(), give], lambda raw: open_statement(raw, FLEET_ID))
    yield Door("binding", [binding], lambda raw: open_binding(raw, FLEET_ID))
    yield Door("record", [BUILD_RECORD.raw], lambda raw: open_record(raw, FLEET_ID))
    yield Door("operator", [operator(ALICE, "alice")], lambda raw: open_operator(raw, FLEET_ID))
    yield Door("revocation", [revocation], lambda raw: open_revocation(raw, FLEET_ID))
    yield Door("join", [join], lambda raw: joining.open_join(raw, FLEET_ID))
    yield Door("invite", [invite.encode()], _text(read_invite))
    yield Door("capability", [f"muster-cap1.t1.{'0' * 64}".encode()], _text(read_token))
    yield Door(
        "certificate",
        [certificates.ca_pem, certificates.tls_pem],
        lambda raw: certificate.open_ca(raw, FLEET_ID),
    )
    yield Door("papers", [certificates.tls_pem], certificate.renew_at_ms)
    yield Door("stream-name", [str(Peer().stream()).encode()], _text(StreamName.parse))
    yield Door("repository", [b"main"], _text(repository_name))
    yield Door("epoch", [b"1-7"], _text(FenceEpoch.parse))


def _git(raw: bytes) -> object:
    question = canon.decode(raw, "question", size_max=CALL_BYTES_MAX)
    if not isinstance(question, dict):
        # A call holds an object there.
        raise Malformed("no arguments")
    return arguments.read(VERBS["git.serve"], VERBS["git.serve"].load(), question, {})


def _stream(raw: bytes) -> object:
    """Frames of a stream: kind by the first byte, at most what was granted is kept."""

    def nowhere(_kind: Type, _payload: bytes) -> None:
        raise AssertionError("feeding sends nothing")

    flow = Flow(nowhere)
    kinds = (Type.DATA, Type.CREDIT, Type.CLOSE)
    at = 0
    while at < len(raw):
        size = 1 + raw[at] % 61
        flow.feed(kinds[raw[at] % 3], raw[at + 1 : at + size])
        at += size
    return flow


def formats() -> Iterator[Door]:
    """The bytes of the log and of the wire."""
    peer = Peer()
    for number in range(3):
        peer.write("some.kind", canon.encode({"n": number, "text": "x" * 50}))
    stream = peer.stream()
    entry = peer.store.log.entry_at(stream, 1)
    sealed = peer.store.log.seal_of(stream)
    assert sealed is not None
    held = seal.make_cosign(
        FLEET_ID, stream, 4, sealed.root, BUILD.machine, "held", BUILD.signer("held"), NOW // 1000
    )
    public, held_public = BUILD.signer("seal").public, BUILD.signer("held").public
    proof, branch = _fork()
    head = wire.Head(str(stream), 4, sealed.note.decode(), 0, ["0" * 64])
    offer = wire.Offer([head], whole=True, forks=[proof.decode()])
    said: list[Any] = [offer, wire.Want(str(stream), 2), wire.Cosigns([held.note.decode()])]
    call = canon.encode({"args": {"to": "x"}, "hops": 1, "on": "build", "verb": "send"})
    yield Door("frame", [frames.encode(Type.CALL, 7, call)], frames.decode)
    yield Door("wire", [wire.encode(m) for m in said], wire.decode)
    yield Door("segment", [peer.segment(0), peer.segment(2)], segment.decode)
    yield Door("entry", [entry.raw], lambda raw: entries.parse(raw, entry.salt, entry.body))
    yield Door("note", [sealed.note, held.note], note.parse)
    yield Door("seal", [sealed.note], lambda raw: seal.open_seal(raw, FLEET_ID, public))
    yield Door("seal-peek", [sealed.note], seal.peek_stream)
    yield Door(
        "cosign",
        [held.note],
        lambda raw: seal.open_cosign(raw, FLEET_ID, seen=held_public, held=held_public),
    )
    yield Door("cosign-peek", [held.note], seal.peek_cosigner)
    yield Door("fork", [proof], lambda raw: forks.open_fork(raw, FLEET_ID, public))
    yield Door("branch", [branch], _text(forks.decode_branch))
    yield Door(
        "call", [call], lambda raw: canon.decode_as(raw, Request, "call", size_max=CALL_BYTES_MAX)
    )
    question = {"machine": "hub", "repo": "main", "service": "git-upload-pack"}
    yield Door("git-question", [canon.encode(question)], _git)
    yield Door("stream", [bytes(range(200))], _stream)
    yield Door("spec", [f.read_bytes() for f in EXAMPLES], probe_spec)
    yield Door("spec-check", [f.read_bytes() for f in EXAMPLES], check_spec)


class Core:
    """A whole core behind one type of frame on one link; what it refuses leaves it as it was."""

    def __init__(self, link: int, type_: Type) -> None:
        self.link, self.type = link, type_
        self.target = Target()
        self.tried = 0
        self.state = self.target.state()

    def read(self, raw: bytes) -> object:
        core = self.target.core
        faults = sum(n for name, n in core.counters.items() if name.startswith("refused"))
        self.target.frame(self.link, self.type, raw, 77)
        self.target.answers.clear()
        self.target.deeds()
        self.tried += 1
        refused = faults != sum(
            n for name, n in core.counters.items() if name.startswith("refused")
        )
        if self.tried % STATE_CHECK_EVERY == 0:
            self.target.step(ev.Tick())
            after = self.target.state()
            if self.link == STRANGER or self.type not in (Type.SEGMENT, Type.CALL):
                assert after == self.state, "a refused frame changed what is durable"
            self.state = after
            assert self.target.call(LOCAL, "status")[0]["ok"]
        return not refused


def cores() -> Iterator[Door]:
    """The same through a real machine: hellos, sync messages, segments and calls."""
    peer = Peer()
    for kind in ("task.open", "message.send", "machine.facts", "group.add", "attempt.finish"):
        peer.write(kind, b'{"task":"t","to":["all"],"text":"x"}')
    sync = next(door.good for door in formats() if door.name == "wire")
    calls = [
        canon.encode({"args": args, "verb": verb})
        for verb, args in (
            ("beat", {"holds": [["t", 1, 1, ""]], "mark": "m"}),
            ("hold", {"gone": [["t", 1, 1]], "held": [], "mark": "m"}),
            ("release", {"epoch": [1, 1], "reason": "", "task": "t"}),
            ("session.wrote", {"files": [["a" * 32, "b" * 32]]}),
            ("session.met", {"back": True, "files": [["a" * 32, "", [["claude", "s-1", 1]]]]}),
            ("renew", {"request": "x"}),
            ("enrol", {"request": "x"}),
            ("git.serve", {"machine": "studio", "repo": "main", "service": "git-upload-pack"}),
            (
                "git.may-push",
                {"peer": BUILD.machine, "updates": [["refs/heads/x", "0" * 40, "1" * 40]]},
            ),
            ("submit", {"tasks": [{"statement": "x", "task": "t", "template": {}}]}),
            ("tasks", {"all": True, "run": "x"}),
            ("target", {"on": "build", "to": "agent@build"}),
        )
    ]
    hello = [b'{"muster":"1","wall_ms":1790000000000}']
    segments = [peer.segment(0), peer.segment(3)]
    for link, name in ((STRANGER, "stranger"), (MEMBER, "member"), (LOCAL, "local")):
        yield Door(f"core-call-{name}", calls, Core(link, Type.CALL).read)
    for link, name in ((STRANGER, "stranger"), (MEMBER, "member")):
        yield Door(f"core-hello-{name}", hello, Core(link, Type.HELLO).read)
        yield Door(f"core-sync-{name}", sync, Core(link, Type.OFFER).read)
        yield Door(f"core-segment-{name}", segments, Core(link, Type.SEGMENT).read)
        yield Door(
            f"core-reply-{name}", [b".{}", b"+x", b'*{"ok":true}'], Core(link, Type.REPLY).read
        )


def all_doors() -> list[Door]:
    return [*documents(), *formats(), *cores()]


def knock(door: Door, rng: random.Random) -> tuple[bytes, bool]:
    """One attempt: the bytes, and whether they were accepted. Raises what is a mistake of ours."""
    if rng.random() < 0.1:
        raw = rng.randbytes(rng.choice([0, 1, 7, 100, 3000]))
    else:
        raw = mutated(rng.choice(door.good), rng)
    with suppress(MusterError):
        return raw, bool(door.read(raw))
    return raw, False
