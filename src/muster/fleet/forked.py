"""What an operator decided about a forked stream: it stays where its branches part.

Rule 1: a fork is named by its stream and the place of the first difference, so that every machine
gives it the same name, whichever proof of it came there first. An earlier difference that is
proved later is another fork, and waits for a decision of its own.
Rule 2: the decision counts for the operator's signature, whoever passes it on. It adds nothing to
the stream and takes nothing away: what counts was settled by the proof. It ends the alarm.
"""

import hashlib
from typing import Any, Final

from muster.fleet.kinds import FORK_CLOSE, ForkClose
from muster.fleet.statement import Statement, args_hash
from muster.log import canon

# The verb whose statement decides; its object is the fork's name.
CLOSE: Final = FORK_CLOSE


def fork_id(stream: str, common: int) -> str:
    """The name of the fork of this stream after its first `common` entries."""
    return hashlib.sha256(canon.encode({"common": common, "stream": stream})).hexdigest()


def close_args(fork: str, note: str) -> Any:
    """The arguments that a statement closing a fork signs."""
    return {"fork": fork, "note": note}


def closes(statement: Statement, body: ForkClose) -> bool:
    """Whether the statement closes exactly this fork."""
    fork = fork_id(body.stream, body.common)
    return (
        statement.verb == CLOSE
        and statement.object == fork
        and statement.args == args_hash(close_args(fork, body.note))
    )
