"""What another fleet's task lets a door of this one hand on: the chain behind such a run.

Rule 1: a grant of `task` to the fleet, by an operator, with bounds. Whom it does not name, nobody
may ask: no agent, no repository and no machine by default, nothing that is known here is told, and
nothing of it is handed on.
Rule 2: the `delegation.open` of the door cites the document as it came. Owner and worker open it:
the order is what a machine of that fleet signed, for that door, and no word more.
Rule 3: of one document there is one run, whatever its door writes.

    run.open ──▶ delegation.open ──▶ peer.hear {document, record}     ╲
                  the door's          signed over there                 grant of `task`, in force
"""

import json
from typing import Final

from muster.errors import MusterError, Refused
from muster.fleet.document import document_id
from muster.fleet.grant import FLEET_GRANTEE, TASK, Grant
from muster.fleet.peer_work import Task, open_work
from muster.log.entry import Entry
from muster.task import delegation, yaml
from muster.task.causes import Lookup, Unproven, read
from muster.task.delegation import Asking, Bounds
from muster.task.delegation_kinds import DelegationOpen
from muster.task.kinds import RunOpen
from muster.task.peer_work import PeerHear
from muster.task.spec import Spec, parse
from muster.task.template import Told

_NOTHING: Final = Told(False, False, 0)


def of_grant(grant: Grant, owner: str) -> Bounds | None:
    """What a grant of `task` lets another fleet ask of this machine; None for nothing."""
    bounds = grant.bounds
    if bounds is None or grant.verb != TASK or grant.object not in (owner, "*"):
        return None
    return Bounds(
        runs=bounds.per_day, depth=1, agents=bounds.agents, machines=(owner,), repos=bounds.repos,
        timeout_ms=bounds.timeout_ms, told=_NOTHING, foreign=True,
    )  # fmt: skip


def check_document(  # noqa: PLR0917 - both ends of the chain, and what they are checked with
    asked: Entry, body: DelegationOpen, run: RunOpen, grant: Grant, fleet: str, lookup: Lookup,
    asking: Asking,
) -> Bounds | None:  # fmt: skip
    """The bounds of a run that another fleet asks for. Raises: Unproven where it did not."""
    came = lookup(asked.causes[0]) if asked.causes else None
    if came is None or came.header.author != asked.header.author:
        text = "this machine has no document of another fleet that asks for it"
        raise Unproven("peer-missing", text)
    heard = read(came, "peer.hear", PeerHear, "peer")
    raw = heard.document.encode()
    try:
        work, _ = open_work(raw, heard.record.encode(), fleet)
    except MusterError as error:
        raise Unproven("peer-forged", f"what asks for it does not hold: {error}") from error
    whose = (FLEET_GRANTEE + work.of, work.door)
    if not isinstance(work, Task) or whose != (grant.to, asked.header.author):
        text = "what asks for it is another fleet's than the grant is to, or for another door"
        raise Unproven("peer-other-fleet", text)
    if (work.spec, work.repo, work.base) != (run.spec, run.repo, run.base):
        text = "the run is another one than the other fleet asked for"
        raise Unproven("peer-other-order", text)
    if body.key != document_id(raw) or not asking.is_first(asked, body.key):
        text = "its door began a run by the same document before, and that alone counts"
        raise Unproven("peer-begun-before", text)
    return of_grant(grant, body.owner)


def check_askable(spec: Spec, repo: str, machine: str) -> None:
    """What no grant lets another fleet do. Raises: Refused with what to change."""
    named = tuple({agent for phase in spec.phases.values() for agent in phase.agents})
    widest = Bounds(
        runs=1, depth=1, agents=named, machines=(machine,), repos=(repo,), told=_NOTHING,
        foreign=True,
    )  # fmt: skip
    if why := delegation.refusal(widest, spec, repo, lambda name: name):
        raise Refused(f"nobody lets another fleet ask for this: {why}")


def narrowed(text: str, machine: str) -> str:
    """The spec with what another fleet's machine is to be told: that machine, and no memory.

    Only where it says nothing of them itself. Raises: SpecErrors for what is no spec.
    """
    parse(text.encode())
    root = yaml.read(text.encode())
    assert isinstance(root, yaml.Mapping), "a spec is a mapping"
    phases = root.values["phases"]
    assert isinstance(phases, yaml.Mapping), "its phases are one, too"
    lines = [f"{name}: {_flow(node)}" for name, node in root.values.items() if name != "phases"]
    if "memory" not in root.values:
        lines.append("memory: none")
    lines.append("phases:")
    for name, node in phases.values.items():
        lines.append(f"  {json.dumps(name)}:")
        assert isinstance(node, yaml.Mapping), "a phase is a mapping"
        needs, person = node.values.get("needs"), node.values.get("by") is not None
        keys = {key: _flow(each) for key, each in node.values.items() if key != "needs"}
        bound = {"machine": json.dumps(machine)} if not person else {}
        if isinstance(needs, yaml.Mapping):
            bound |= {key: _flow(each) for key, each in needs.values.items()}
        if bound:
            keys["needs"] = "{" + ", ".join(f"{key}: {each}" for key, each in bound.items()) + "}"
        lines += [f"    {key}: {each}" for key, each in keys.items()]
    made = "\n".join(lines) + "\n"
    parse(made.encode())
    return made


def _flow(node: yaml.Node) -> str:
    """A value on one line, read as it was."""
    if isinstance(node, yaml.Mapping):
        inner = (f"{json.dumps(key)}: {_flow(each)}" for key, each in node.values.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(node, yaml.Sequence):
        return f"[{', '.join(map(_flow, node.items))}]"
    if node.plain and not isinstance(node.value, str):
        return node.text or "null"
    return json.dumps(node.text, ensure_ascii=False)
