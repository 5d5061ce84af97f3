"""Whether this machine is still where it found out that it is.

Rule: what only a person, or a router, can know is never said to be gone.
"""

from collections.abc import Mapping
from typing import Any

from muster.node.host.facts import own_addresses


class OwnAddress:
    """Whether the address that was found out for this machine is still one of its own.

    A name, or what a router has for it, never was: nothing here can say whether it leads here.
    """

    def __init__(self) -> None:
        self._was_own: set[str] = set()

    def moved(self, facts: Mapping[str, Any]) -> bool:
        """Whether it was ours, as long as this runs, and is gone."""
        host = str(facts.get("address") or "").rpartition(":")[0].strip("[]")
        if host in own_addresses():
            self._was_own.add(host)
            return False
        return host in self._was_own
