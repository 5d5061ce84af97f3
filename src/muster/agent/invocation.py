"""What is added to an agent's command for one attempt: the session that it goes on with.

Rule 1: what stands in an argument every user of the machine can read: no prompt, no secret.
Rule 2: the words come from the catalogue, with one value in the place of a name; a value never
begins with a dash, for then it would be an option of the program.
"""

import uuid
from collections.abc import Sequence
from typing import Any

from muster.agent.base import AttemptOrder
from muster.agent.catalogue import HEADLESS, AgentEntry, Start
from muster.errors import Malformed


def invocation(order: AttemptOrder, entry: AgentEntry, start: Start) -> dict[str, Any]:
    """What the driver is told beside the order. Raises: Malformed for a session of no use."""
    own = entry.headless
    argv, session = list(start.argv), ""
    if start.driver == HEADLESS and own is not None:
        if order.resume and own.resume:
            session = order.resume
            argv += _filled(own.resume, session=session)
        elif own.session:
            session = str(uuid.uuid4())
            argv += _filled(own.session, session=session)
    return {
        "driver": start.driver,
        "argv": argv,
        "dialect": own.dialect if own else "",
        "session": session,
        "loads_next_minute": entry.loads_next_minute,
        "mode": order.mode or entry.mode,
        "login": entry.login,
    }


def _filled(words: Sequence[str], **values: str) -> list[str]:
    for name, value in values.items():
        if not value or value.startswith("-"):
            raise Malformed(f"{value[:40]!r} cannot be a {name}")
    return [word.format(**values) for word in words]
