"""A whole machine to attack: a real `Core` on a real store, a hub with authority, and three doors.

    STRANGER  a link that proved no machine      MEMBER  the link of another machine of the fleet
    LOCAL     a program of the same user, without any statement

Nothing is faked but time and randomness: what an attacker sends here, a daemon would have handed
to the same core.
"""

import json
import random
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.fleet.facts import Facts
from muster.fleet.folds import DENIAL
from muster.fleet.machine import Identity, Operator
from muster.fleet.statement import EVERY_MACHINE, sign_statement
from muster.limits import CONFIRM_MS, FRAME_PAYLOAD_BYTES_MAX
from muster.log.stream import Incarnation
from muster.node import event as ev
from muster.node.core import Core
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.part import all_folds
from muster.node.parts import PARTS
from muster.node.tasks.runs import RunService
from muster.store.store import Store
from muster.task.instruction import Now
from muster.verbs.table import VERBS
from tests.fleet.world import (
    ALICE,
    AUTHORITY,
    BUILD,
    BUILD_RECORD,
    FLEET_ID,
    LAPTOP_RECORD,
    NOW,
    STUDIO,
    STUDIO_RECORD,
    operator,
)
from tests.node.serving import Serving

STRANGER: Final = 1
MEMBER: Final = 2
LOCAL: Final = 3

# A refusal is written down; nothing else may be written because somebody was refused.
REFUSALS: Final = frozenset({"order.deny"})

SPEC: Final = "muster: 1\nname: hello\nphases:\n  one:\n    agent: noop\n    do: '{}'\n"


class Target:
    """See the top of this file. It is settled: its own history needs nobody's word."""

    def __init__(
        self,
        *,
        seed: int = 1,
        authority: bool = True,
        image: bytes | None = None,
        now: Now | None = None,
        incarnation: Incarnation | None = None,
    ) -> None:
        """`image`, `now` and `incarnation`: it goes on from what another one had committed."""
        rng = random.Random(seed)
        self.rng = rng
        self.now = now or Now(10_000, NOW)
        self.store = Store(
            ":memory:",
            fleet=FLEET_ID,
            machine=STUDIO.machine,
            rng=rng.randbytes,
            folds=all_folds(FLEET_ID, PARTS),
            image=image,
        )
        self.core = Core(
            store=self.store,
            identity=STUDIO,
            fleet=FLEET_ID,
            incarnation=incarnation or Incarnation(f"{seed:032x}"),
            rng=rng.randbytes,
            parts=PARTS,
            verbs=VERBS,
            authority=AUTHORITY if authority else None,
            settings={
                "record": STUDIO_RECORD.raw.decode(),
                "operators": [operator(ALICE, "alice").decode()],
                "machines": [BUILD_RECORD.raw.decode(), LAPTOP_RECORD.raw.decode()],
                "address": "hub.example:7447",
                "version": "test",
            },
            now=self.now,
        )
        self.answers: dict[tuple[int, int], list[dict[str, Any]]] = {}
        self.other_effects: list[ev.Effect] = []
        self._parts: dict[tuple[int, int], bytes] = {}
        self._channel = 100
        # A handler wants to go on: it has its turn with the next step.
        self._again = False
        self.serving = Serving(self.core, self._take, lambda: self.now.boot_ms / 1000)
        self._take(self.core.start(self.now))
        facts = Facts("linux", "x86_64", cpus=2, memory_mib=4096, agents={"noop": "1"})
        self.step(
            ev.LinkUp(STRANGER, "", False, "http"),
            ev.LinkUp(MEMBER, BUILD.machine, False, "http"),
            ev.LinkUp(LOCAL, "", True, "ipc"),
            FactsChanged(msgspec.to_builtins(facts)),
        )
        if image is not None:
            # Its own history needs nobody's word after this long.
            self.now = Now(self.now.boot_ms + 2 * CONFIRM_MS, self.now.wall_ms + 2 * CONFIRM_MS)
            self.step(ev.Tick())
        assert self.core.settled

    # --- driving -------------------------------------------------------------------------

    def step(self, *events: ev.Event) -> list[ev.Effect]:
        self.now = Now(self.now.boot_ms + 1, self.now.wall_ms + 1)
        again, self._again = self._again, False
        effects = self.core.step((*events, ev.Turn()) if again else events, self.now)
        self._take(effects)
        return effects

    def frame(self, link: int, type_: Type, payload: bytes, channel: int = 0) -> list[ev.Effect]:
        return self.step(ev.Arrived(link, type_, channel, payload))

    def raw_call(self, link: int, payload: bytes) -> list[dict[str, Any]]:
        """The answers to a CALL frame with any payload."""
        self._channel += 1
        self.frame(link, Type.CALL, payload, self._channel)
        while self._again and (link, self._channel) not in self.answers:
            self.step()
        return self.answers.pop((link, self._channel), [])

    def call(self, link: int, verb: str, args: Any = None, **more: Any) -> list[dict[str, Any]]:
        """The answers to a well-formed call; `more` are further fields of the request."""
        request = {"args": {} if args is None else args, "verb": verb, **more}
        return self.raw_call(link, msgspec.json.encode(request, order="sorted"))

    def order(
        self,
        verb: str,
        object: str,
        args: Mapping[str, Any],
        *,
        by: Operator = ALICE,
        target: str = STUDIO.machine,
        nonce: bytes | None = None,
        issued_ms: int | None = None,
        until_ms: int | None = None,
        fleet: Any = FLEET_ID,
    ) -> str:
        """A statement as `muster.cli.sign` makes one."""
        issued = self.now.wall_ms if issued_ms is None else issued_ms
        raw = sign_statement(
            by.statement,
            fleet=fleet,
            verb=verb,
            object=object,
            target=target,
            args=dict(args),
            nonce=self.rng.randbytes(16) if nonce is None else nonce,
            issued_ms=issued,
            until_ms=issued + 60_000 if until_ms is None else until_ms,
        )
        return raw.decode()

    def _take(self, effects: Iterable[ev.Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, ev.Send):
                if isinstance(effect, ev.Again):
                    self._again = True
                elif not self.serving.carry_out(effect):
                    self.other_effects.append(effect)
                continue
            frame = frames.decode(effect.frame)
            assert len(frame.payload) <= FRAME_PAYLOAD_BYTES_MAX
            if frame.type is Type.REPLY:
                key = (effect.link, frame.channel)
                raw = self._parts.pop(key, b"") + frame.payload[1:]
                if frame.payload[:1] == b"+":
                    self._parts[key] = raw
                else:
                    self.answers.setdefault(key, []).append(self._read(raw))
        self.serving.turn()

    @staticmethod
    def _read(raw: bytes) -> Any:
        """What a member answers to a call that was passed on may be anything."""
        try:
            return json.loads(raw)
        except ValueError:
            return {"ok": False, "error": {"kind": "", "text": "not JSON", "exit": 1}}

    # --- observing -----------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that is durable, but for refusals: what each stream holds, and every folded row."""
        kinds: dict[str, list[str]] = {}
        for stream in self.store.log.streams():
            start = 0
            while entries := self.store.log.slice(stream, start):
                start += len(entries)
                kept = [e.id.hex() for e in entries if e.header.kind not in REFUSALS]
                kinds.setdefault(str(stream), []).extend(kept)
        tables = [t for fold in all_folds(FLEET_ID, PARTS) for t in fold.tables if t is not DENIAL]
        rows = {t.name: sorted(map(repr, self.store.tables.rows(t))) for t in tables}
        return {"entries": kinds, "rows": rows, "runs": sorted(self.core.part(RunService).runs)}

    def deeds(self) -> list[ev.Effect]:
        """What was begun outside since last asked: nothing that is only an answer or a note."""
        found = [e for e in self.other_effects if not isinstance(e, ev.Note)]
        self.other_effects = []
        return found


def check_sentence(answer: Mapping[str, Any]) -> str:
    """A refusal is one clear line of ours: not an exception's name, and nothing that moves a cursor."""
    assert answer["ok"] is False, answer
    text = str(answer["error"]["text"])
    assert text, answer
    assert len(text) <= 1000, f"{len(text)} characters: {text[:200]}"
    assert text.isprintable(), repr(text)
    words = ("Traceback", "KeyError", "TypeError", "ValueError", "AttributeError", "object at 0x")
    assert not any(word in text for word in words), text
    return text


__all__ = ["EVERY_MACHINE", "LOCAL", "MEMBER", "SPEC", "STRANGER", "Identity", "Target"]
