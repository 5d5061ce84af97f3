"""A link inside the links of a third machine, which passes on frames that it cannot read.

Rule 1: the middle is a wire: the link is a tunnel (`tunnel.py`), TLS from end to end.
Rule 2: what is under way in each direction is bounded by what the receiver granted, by the middle,
        too, which cuts whoever breaks it: nobody can fill its memory.

The conversation with the middle is a stream (`flow.py`), with the terms of a relay.
docs/spec/frames.md is the normative text.
"""

from typing import Final

from muster.channel.tunnel import Tunnels

NAME: Final = "relay"


class RelayChannel(Tunnels):
    """Opens the end that asked for the relay, and the one that was asked, over their streams."""

    name = NAME
