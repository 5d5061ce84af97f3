"""All of what an agent is about to do, as one number; and what sort of thing that is.

Rule 1: what a person's word is bound to is what the agent said, whole: not what a journal shows of
it, not what is left when secrets are hidden. So nothing but a number of it leaves this process.
Rule 2: paths are taken as they lead at this moment: a link that leads elsewhere is another action.
Rule 3: a nonce is among it: a number that two actions have in common would tell that they are
equal, and whoever knows an action's form could guess what was left out of it.
"""

import hashlib
import json
import os.path
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from muster.agent.policy import CHANGING

# By the kind of a tool: what a grant of `approve` may name. Any other one is of the class `other`.
_CLASSES: Final = {
    "read": "read-outside", "search": "read-outside", "execute": "command",
    "fetch": "network-host", "switch_mode": "plan", **dict.fromkeys(CHANGING, "edit-outside"),
}  # fmt: skip
# What of a call is its progress, or words for people that change while it waits.
_PROGRESS: Final = frozenset({"status", "rawOutput"})


def class_of(kind: str) -> str:
    """The class of an approval for a tool of this kind; files inside need none by default."""
    return _CLASSES.get(kind, "other")


def digest(
    order: Mapping[str, Any],
    session: str,
    call: Mapping[str, Any],
    named: Sequence[str],
    nonce: str,
    *,
    resolve: Callable[[str], str] = os.path.realpath,
) -> str:
    """The sha256 of the whole action, now; `named` are all paths of the call."""
    cwd = str(order["cwd"])
    whole = {
        "call": {name: value for name, value in call.items() if name not in _PROGRESS},
        "cwd": [cwd, _lead(cwd, resolve)],
        "nonce": nonce,
        "paths": [[path, _lead(os.path.join(cwd, path), resolve)] for path in named],
        "policy": order.get("policy") or {},
        "sandbox": order.get("sandbox") or {},
        "session": session,
    }
    # Escapes alone: what an agent said may hold halves of characters, which no UTF-8 has.
    raw = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(b"muster/action/v1\n" + raw.encode("ascii")).hexdigest()


def _lead(path: str, resolve: Callable[[str], str]) -> str:
    """Where a path leads, "" for what no file system can name."""
    try:
        return resolve(path)
    except (OSError, ValueError, RecursionError):
        return ""
