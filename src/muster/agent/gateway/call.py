"""A call of a model, as it is told when it has ended. Never what was said in it."""

from typing import Literal

import msgspec

from muster.agent.gateway.usage import Usage

Ending = Literal["answered", "refused", "spent", "stalled", "unreachable", "broken", "left", "slow"]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call, when it has ended; with `times` above 1 the sum of so many that ended alike."""

    api: str
    method: str
    path: str
    """Below the API's base; "" where it is none that passes."""
    ending: Ending
    status: int
    """Of the answer that the agent got; 0 where it got none."""
    model: str = ""
    """As it was asked for."""
    answered: str = ""
    """As it said itself."""
    id: str = ""
    """The answer's."""
    request_id: str = ""
    """The server's name for the call."""
    usage: Usage = Usage()
    usd_millionths: int = 0
    estimated: bool = False
    output_max: int = 0
    """What the output was limited to, where the budget did so; else 0."""
    sent_bytes: int = 0
    got_bytes: int = 0
    first_ms: int = -1
    """To the first byte of the answer's body; -1 where there was none."""
    ms: int = 0
    why: str = ""
    """Of a call that was not answered, a sentence without anything of its content."""
    times: int = 1
