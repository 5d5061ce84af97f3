"""A part of a machine's core: one service, in one file.

Rule: a part names the effects that it asks for. Whoever drives the core has a handler for each of
them before it begins.
"""

from typing import ClassVar

from muster.node.event import Effect


class Part:
    """See the rule at the top of this file."""

    effects: ClassVar[tuple[type[Effect], ...]] = ()
