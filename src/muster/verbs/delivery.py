"""Why a message is where it is: how far it came with everybody, and what was tried."""

from msgspec import Struct

from muster.errors import NotFound, Refused
from muster.node.link import Try
from muster.node.services import messages
from muster.verbs.declaration import Core
from muster.verbs.inbox import Delivery, deliveries


class Receiver(Delivery, frozen=True):
    """How far a message came with one recipient, and what became of each try to reach its machine
    since this daemon's start, the newest first.
    """

    tries: list[Try]


class WhyMessage(Struct, frozen=True):
    message: str
    sender: str
    text: str
    t_ms: int
    to: list[Receiver]


def of_message(core: Core, text: str, missing: NotFound) -> WhyMessage:
    """A message that was sent from here. Raises: NotFound, after `missing`, where none is.

    Also: Refused where it may be several, or was sent from another machine.
    """
    try:
        message = messages.find(core, text)
    except NotFound:
        raise NotFound(f"{missing}; `muster sent` has the ids of messages") from None
    sender = message.stream.machine
    if sender != core.machine:
        name = core.membership.name_of(sender)
        raise Refused(
            f"that message was sent from {name}, which knows what it tried: "
            f"`muster why {text[:40]} --on {name}`"
        )
    known = {record.name: machine for machine, record in core.roster.known.items()}
    whom = [
        Receiver(
            each.machine, each.agent, each.state, each.proof, core.tries_of(known[each.machine])
        )
        for each in deliveries(core, message)
    ]
    name = core.membership.name_of(sender)
    return WhyMessage(message.id.hex(), name, message.text, message.at_ms, whom)
