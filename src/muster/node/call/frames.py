"""Frames of links: each type goes to the part that takes it (`Core.frames`).

Rule 1: a link that proved no machine may call, and nothing else; one of another fleet hangs up on
its calls, too, and guests.py counts both.
Rule 2: what breaks a rule is refused and counted; a link that brings too much of it is cut. What
was kept of a frame before it failed stays: each part of a message was checked for itself.
"""

from typing import TYPE_CHECKING, Final

from muster.channel.flow import TYPES as STREAM_TYPES
from muster.channel.frame import Type
from muster.errors import Malformed, MusterError, Refused
from muster.node import event as ev
from muster.node.call.guests import Guests
from muster.node.counter import labelled
from muster.node.guard import OURS
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.core import Core

# What somebody may send who proved no machine.
_OPEN_TYPES: Final = frozenset({Type.CALL, Type.REPLY, *STREAM_TYPES})
_GUEST_TYPES: Final = frozenset({Type.CALL, Type.CLOSE})


class Frames(Part):
    name = "frames"

    def __init__(self, core: "Core") -> None:
        self._core, streams = core, core.replication
        core.on(ev.Arrived, self._arrived)
        core.frames[Type.SEGMENT] = lambda link, _, raw: streams.on_segment(link.id, raw, *core.now)
        for type in (Type.OFFER, Type.WANT, Type.COSIGN):
            core.frames[type] = lambda link, _, raw: streams.on_message(link.id, raw, *core.now)

    def _arrived(self, event: ev.Arrived) -> None:
        link = self._core.links.get(event.link)
        if link is None:
            return
        link.heard_ms = self._core.now.boot_ms
        try:
            found = self._core.frames.get(event.type)
            if not link.peer and event.type not in _OPEN_TYPES:
                raise Refused("a frame about streams on a link that proved no machine")
            if link.foreign and event.type not in _GUEST_TYPES:
                raise Refused("a frame that is no call on a link of another fleet")
            closes = link.foreign and event.type is Type.CLOSE
            if closes and not self._core.part(Guests).hears(link):
                return
            if found is not None:
                found(link, event.channel, event.payload)
            elif event.type in STREAM_TYPES:
                self._core.do(ev.Stray(event.link, event.type, event.channel, event.payload))
            else:
                raise Malformed(f"a {event.type.name} frame has no place here")
        except (Refused, *OURS) as error:
            who = self._core.membership.name_of(link.peer) or "a peer"
            if isinstance(error, Refused):
                fault: MusterError = error
                self._core.note(f"refused from {who}: {error}")
            else:
                fault = Malformed("this machine could not deal with it")
                self._core.guard.failed("frame", who, error)
            if self._core.replication.fault(link.id, fault):
                self._core.do(ev.Cut(link.id, "too many frames were refused"))
        except MusterError as error:
            if self._core.store.broken is not None:
                raise
            self._core.counters[labelled("failed", error)] += 1
