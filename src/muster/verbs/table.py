"""The table of verbs: the one place that says what can be asked of Muster, and by whom.

Rule 1: a verb that is not in this table cannot be called; nothing is looked up by reflection.
Rule 2: `need` is the authority a call must bring; there is no default but refusal:

    nothing   anybody, also a peer that proved nothing; enrolment only
    peer      a machine of the fleet, over its own link
    local     a program of the same user on the same machine; from elsewhere as `order`
    order     a statement signed by an operator whose grants allow the verb
    agent     as `order`, or the capability of a running task that names the verb

Rule 3: `handler` is `module:function`, loaded on use; reading the table imports nothing heavy,
because every command reads it before it does anything (no dataclasses: they import `inspect`).

`place` is `daemon` (one step of its core), `loop` (the daemon, but waiting for input or output)
or `client` (inside the command itself). `acts` is the machine that an order without `--on` is
for: the one it is typed on, the hub, the one with the fleet's authority (the one it is typed on
where that holds it, else the hub), or the owner of the task or run that it names.
"""

from typing import Final

from muster.verbs.table_fleet import FLEET
from muster.verbs.table_mail import MESSAGES
from muster.verbs.table_truth import TRUTH
from muster.verbs.table_work import WORK
from muster.verbs.verb import Acts, Arg, Kind, Need, Place, Verb

__all__ = ["GROUPS", "VERBS", "Acts", "Arg", "Kind", "Need", "Place", "Verb"]

GROUPS: Final[dict[str, tuple[Verb, ...]]] = {
    "The fleet": FLEET,
    "Work": WORK,
    "Messages": MESSAGES,
    "What is true": TRUTH,
}

VERBS: Final[dict[str, Verb]] = {v.name: v for group in GROUPS.values() for v in group}
