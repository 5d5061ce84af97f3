"""A chat service in memory, and machines with a bridge to it: what the tests of chats draw with.

    world = ChatFleet()             # `hub` has the bridge, an agent works on `studio`
    alice = world.link("alice")
    world.says("alice", "muster status")

What a bridge would tell the daemon is an event; what it would be told is looked at in `posts`.
"""

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

from tests.node.cores import Cores, One

from muster.bridge.base import Passed, Pressed, Said
from muster.fleet.grant import Grant, sign_give
from muster.node import event as ev
from muster.node.host.chat_config import Room
from muster.node.services.chat import BridgeHeard, BridgeKept
from muster.node.services.chat_posts import (
    BridgeDown,
    BridgeShow,
    BridgeShown,
    BridgeUp,
    ChatPosts,
)
from muster.node.tasks.approvals import Approvals
from muster.node.tasks.attempt_body import AttemptEvent

ROOM = "!fleet"
SERVICE = "matrix"
TASK = "c0ffee" * 5 + "42"
DAY_MS = 24 * 3_600_000


class Does(ev.Event, frozen=True):
    """Something that a test does within a step."""

    work: Callable[[], Any]


def within(one: One, work: Callable[[], Any]) -> None:
    """Do it as a part of the core would."""
    if Does not in one.core._hears:
        one.core.on(Does, lambda event: event.work())
    one.step(Does(work))


class ChatFleet:
    """See the top of this file."""

    def __init__(self, thread: str = "") -> None:
        self.world = Cores("hub", "studio", "nas")
        self.world.link("hub", "studio")
        self.world.link("hub", "nas")
        self.hub, self.studio = self.world["hub"], self.world["studio"]
        self.thread = thread
        self._ids = itertools.count(1)
        # What the service shows, by what it calls it; how often each was shown.
        self.shown: dict[str, BridgeShow] = {}
        self.times: dict[str, int] = {}
        self.changes: set[str] = set()
        self.kept: list[int] = []
        self.up()
        self.world.pass_ms(1_000)

    def up(self) -> None:
        rooms = self.hub.core.part(ChatPosts).rooms
        rooms[SERVICE] = Room(SERVICE, ROOM, self.thread)
        self.hub.step(BridgeUp(SERVICE))
        self.serve()

    def down(self) -> None:
        self.hub.step(BridgeDown(SERVICE))

    def restart(self) -> None:
        """The daemon of the hub is killed and starts again; so does its bridge."""
        self.world.restart("hub")
        self.world.link("hub", "studio")
        self.world.link("hub", "nas")
        self.world.pass_ms(1_000)
        self.up()

    # --- the service ----------------------------------------------------------------------

    def serve(self) -> None:
        """Show what is wanted, and say so, until nothing is."""
        self.world.drain()
        while True:
            effects, self.hub.effects[:] = list(self.hub.effects), []
            self.kept += [each.number for each in effects if isinstance(each, BridgeKept)]
            wanted = [each for each in effects if isinstance(each, BridgeShow)]
            if not wanted:
                return
            for each in wanted:
                ref = each.ref or f"${len(self.shown)}"
                self.shown[ref] = each
                assert not each.ref or each.key not in self.changes, "each change has its own key"
                self.changes.add(each.key)
                key = each.key.rpartition("/")[0] if each.ref else each.key
                self.times[key] = self.times.get(key, 0) + 1
                self.hub.step(BridgeShown(SERVICE, each.number, ref))
            self.world.drain()

    def hears(self, heard: Any, cursor: str = "") -> None:
        self.hub.step(BridgeHeard(SERVICE, next(self._ids), heard, cursor))
        self.serve()

    def says(
        self, account: str, text: str, *, id: str = "", private: bool = False, thread: str = "",
        workspace: str = "w", cursor: str = "",
    ) -> str:  # fmt: skip
        """Somebody says something; the last post in answer to it, "" where there is none."""
        id = id or f"e{next(self._ids)}"
        room = f"!{account}" if private else ROOM
        self.hears(Said(id, workspace, account, room, private, text, thread, below=id), cursor)
        return self.text(f"h/{id}")

    def presses(
        self, account: str, key: str, what: str, *, data: str = "", id: str = "",
        workspace: str = "w", ref: str = "",
    ) -> str:  # fmt: skip
        """Somebody presses a button (by its letter) of the newest post whose key begins so."""
        ref = ref or self.ref(key)
        before = set(self.shown)
        button = data or next(d for d in self.buttons(key) if d.startswith(what))
        id = id or f"p{next(self._ids)}"
        self.hears(Pressed(id, workspace, account, ROOM, ref, button))
        return "\n".join(self.shown[each].post.text for each in self.shown if each not in before)

    def passes(self, cursor: str) -> None:
        self.hears(Passed(), cursor)

    def ref(self, key: str) -> str:
        return [ref for ref, each in self.shown.items() if each.key.startswith(key)][-1]

    def text(self, key: str) -> str:
        found = [each.post.text for each in self.shown.values() if each.key.startswith(key)]
        return found[-1] if found else ""

    def buttons(self, key: str) -> list[str]:
        return [each.data for each in self.shown[self.ref(key)].post.buttons]

    # --- the fleet ------------------------------------------------------------------------

    def code(self, days: int = 30) -> str:
        args = {"days": days, "service": SERVICE}
        answer = self.hub.order("chat.link", SERVICE, args)
        assert answer["ok"], answer
        return str(answer["value"]["code"])

    def link(self, account: str, **more: Any) -> str:
        """Link an account; what the bot says to that."""
        return self.says(account, self.code(), private=True, **more)

    def key(self, account: str) -> str:
        return f"chat.{SERVICE}.{account}@{self.hub.id}"

    def given(self, account: str, verb: str, object: str) -> tuple[Grant, str]:
        """A grant, and the operator's statement that gives it."""
        until_ms = self.hub.core.now.wall_ms + DAY_MS
        grant = Grant(object, self.key(account), until_ms, verb)
        raw = sign_give(
            self.world.operator.statement, self.world.fleet, grant,
            nonce=self.world._nonces.randbytes(16), issued_ms=self.hub.core.now.wall_ms,
        ).decode()  # fmt: skip
        return grant, raw

    def grant(self, account: str, verb: str, object: str = "*") -> Any:
        """What `muster grant chat:… VERB` does; the answer."""
        args = {"to": f"chat:{SERVICE}:{account}", "verb": verb, "object": object}
        meant = self.hub.call("grant.check", args)
        grant, raw = self.given(account, verb, object)
        shown = {"object": object, "to": grant.to, "until_ms": grant.until_ms, "verb": verb}
        answer = self.hub.order("grant", verb, args, options={"grant": shown, "statement": raw})
        # The command asks first, and goes on only then.
        assert meant["ok"] == answer["ok"], (meant, answer)
        self.world.pass_ms(500)
        self.serve()
        return answer

    def asks(
        self,
        ask: str = "1",
        sort: str = "edit-outside",
        title: str = "write /etc/a",
        input: str = "",
        paths: tuple[str, ...] = ("/etc/a",),
    ) -> None:
        """An agent on `studio` asks for a permission."""
        fields = {
            "ask": ask, "class": sort, "title": title, "paths": [*paths], "input": input,
            "action": hashlib.sha256(ask.encode()).hexdigest(),
        }  # fmt: skip
        self._happens("agent.ask", fields, "claude@studio")

    def uses(self, ask: str = "1", action: str = "") -> None:
        """Its agent's driver looked at the action again, and tells its number."""
        number = hashlib.sha256((action or ask).encode()).hexdigest()
        self._happens("agent.use", {"ask": ask, "action": number}, "muster")

    def _happens(self, kind: str, fields: dict[str, Any], actor: str) -> None:
        event = AttemptEvent(TASK, (1, 1), kind, fields, actor)
        within(self.studio, lambda: self.studio.core.part(Approvals).happened(event))
        self.world.pass_ms(500)
        self.serve()

    def decided(self, ask: str = "1", by: str = "op:alice") -> None:
        """Its agent heard the answer."""
        self._happens("agent.decision", {"ask": ask, "by": by}, "muster")

    def answers(self) -> list[tuple[str, str, str]]:
        """What agents on `studio` were answered."""
        found = [e for e in self.studio.effects if type(e).__name__ == "AnswerAttempt"]
        return [(e.ask, e.word, e.by) for e in found]  # type: ignore[attr-defined]

    def incident(
        self, key: str = "disk", title: str = "the disk is full", on: str = "nas",
        severity: str = "warning",
    ) -> None:  # fmt: skip
        one = self.world[on]
        within(one, lambda: one.core.incidents.open(key, severity, title))
        self.world.pass_ms(500)
        self.serve()

    def over(self, key: str = "disk", reason: str = "room was made", on: str = "nas") -> None:
        one = self.world[on]
        within(one, lambda: one.core.incidents.close(key, reason))
        self.world.pass_ms(500)
        self.serve()
