"""Verbs about forked streams: which there are, and an operator's decision that closes one.

Rule 1: a fork is never undone and nothing is chosen: the stream ended where its branches part,
everywhere, when the proof came. What is decided is that a person has looked at it.
Rule 2: until then it stands among the incidents of every machine that holds the proof.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from muster.errors import Conflict, NotFound, Refused
from muster.fleet import kinds
from muster.fleet.forked import fork_id
from muster.log import canon
from muster.node.call import Call
from muster.node.core import Core
from muster.verbs.client import Door

ID_CHARS_MIN: Final = 4


def forks(core: Core, call: Call) -> list[dict[str, Any]]:
    """Every fork that this machine can prove or that an operator closed, open ones first."""
    found = {str(each["fork"]): each for each in proved(core)}
    for fork, closed in core.roster.closed.items():
        machine = core.standing.name_of(closed.stream.partition("/")[0])
        here = found.setdefault(
            fork,
            {
                "fork": fork, "stream": closed.stream, "machine": machine,
                "common": closed.common, "beyond": 0, "proof": "",
            },
        )  # fmt: skip
        here["state"], here["note"], here["t_ms"] = "closed", closed.note, closed.issued_ms
        operator = core.roster.operators.get(closed.operator)
        here["by"] = operator.name if operator is not None else closed.operator[:12]
    return sorted(found.values(), key=lambda f: (f["state"] != "open", f["stream"], f["common"]))


def proved(core: Core) -> list[dict[str, Any]]:
    """The forks that this machine holds a proof of."""
    found = []
    for stream, proof in core.replication.forks.proofs().items():
        common = core.store.frozen_at(stream)
        if common is None:
            continue
        held = core.store.query("select held from stream where name = ?", (str(stream),))
        found.append(
            {
                "fork": fork_id(str(stream), common),
                "stream": str(stream),
                "machine": core.standing.name_of(stream.machine),
                "common": common,
                "beyond": max(0, int(str(held[0][0])) - common) if held else 0,
                "proof": hashlib.sha256(proof).hexdigest(),
                "state": "open",
                "by": "",
                "note": "",
                "t_ms": 0,
            }
        )
    return found


def close(door: Door, args: Mapping[str, Any]) -> Any:
    """Name the fork in full, which is what the operator signs."""
    begin = str(args["fork"])
    found = [f for f in door.ask("forks", {}) if str(f["fork"]).startswith(begin)]
    if not found or len(begin) < ID_CHARS_MIN:
        raise NotFound(f"no fork begins with {begin[:40]!r}; `muster forks` lists them")
    if len(found) > 1:
        raise Refused(f"more than one fork begins with {begin[:40]!r}; give more of its id")
    signed = {"fork": found[0]["fork"], "note": " ".join(args.get("note") or ())[:500]}
    return door.ask("fork.close", signed)


def settle(core: Core, call: Call) -> dict[str, Any]:
    """Write the decision down, for every machine to fold."""
    fork, note = str(call.args["fork"]), str(call.args.get("note") or "")
    found = next((f for f in forks(core, call) if f["fork"] == fork), None)
    if found is None:
        raise NotFound(
            f"this machine holds no proof of fork {fork[:12]}; `muster forks` lists them"
        )
    if found["state"] != "open":
        raise Conflict(f"fork {fork[:12]} was closed by {found['by']} already")
    body = kinds.ForkClose(found["common"], note, found["proof"], call.statement, found["stream"])
    raw = canon.encode(msgspec.to_builtins(body))
    entry = core.append(kinds.FORK_CLOSE, raw, cause=call.cites, actor=call.actor)
    return {"fork": fork, "stream": found["stream"], "common": found["common"],
            "entry": entry.id.hex()}  # fmt: skip
