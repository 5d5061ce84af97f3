"""Verbs with which an agent hands on work: to ask another agent for a run, and to take that back.

Rule 1: whatever is asked for becomes a spec, of which everybody sees the text: a prompt is one of
one phase. What it may be is looked at before anything is written (node/tasks/delegations.py).
Rule 2: the id of the run is answered at once; `await` waits for it, as long as its caller likes.
Rule 3: under one key there is one run, and so there is for the same words while it goes on: whoever
asks again after a lost answer gets the run that there is.
Rule 4: what nothing lets a live session hand on it may propose: a person orders that, or does not
(node/tasks/proposals.py). The agent of a task has what its spec lets, and no more.
"""

import json
from collections.abc import Iterable
from typing import Annotated, Any, Final

from msgspec import UNSET, Struct, UnsetType

from muster.errors import Conflict, Denied, Malformed, NotFound
from muster.fleet.facts import LOGGED_OUT
from muster.limits import DELEGATED_SPEC_BYTES_MAX, KEY_CHARS_MAX, REASON_CHARS_MAX
from muster.log.stream import MachineId
from muster.node.tasks.delegations import Delegations
from muster.node.tasks.proposals import Proposals, content_of
from muster.node.verb import Line
from muster.task import check as checks
from muster.task.delegation import UNCHECKED, narrowed
from muster.task.delegation_fold import DELEGATION, DelegationRow
from muster.task.problem import shown
from muster.task.route import NOOP, ORDER_SINCE
from muster.task.spec import Spec, listed
from muster.task.template import SHELL, text_size
from muster.task.version import version_of
from muster.verbs.declaration import Call, Core, Request, Words, opt, pos, verb
from muster.verbs.find import find_run
from muster.verbs.proposal import Proposed, proposed
from muster.verbs.spec import fleet

_NAME: Final = "handed-on"
_PHASE: Final = "work"
# Of the newest that a machine handed on: whoever asks twice in error does so soon.
_LOOKED_MAX: Final = 50


class Delegate(Request, frozen=True):
    text: Annotated[Words, pos("what is to be done, as a prompt")] = ()
    agent: Annotated[Words, opt("whom to ask; of several, the first that is there")] = ()
    machine: Annotated[Words, opt("where; of several, any")] = ()
    label: Annotated[Words, opt("a label that the machine has; several times")] = ()
    repo: Annotated[str, opt("the repository to work in", kind="repository")] = ""
    base: Annotated[str, opt("the branch or commit to start from", kind="branch")] = ""
    deliver: Annotated[Words, opt("a path that has to exist when it is done; several times")] = ()
    check: Annotated[str, opt("a command that has to succeed when it is done")] = ""
    timeout: Annotated[str, opt("how long it may take: 30s, 10m, 2h")] = ""
    spec: Annotated[str, opt("a whole spec instead, - for standard input", kind="file")] = ""
    key: Annotated[str, opt("an idempotency key: the same key is the same run")] = ""


class Delegated(Struct, frozen=True):
    """The run that was asked for, and who owns it; not `fresh`: it was asked for before.

    Where nothing lets a live session ask for it there is a `proposal` instead, and `run` is "":
    a person orders it by the command that stands there, or refuses it. Who asks again hears which.
    """

    run: str
    fresh: bool
    owner: str
    proposal: Proposed | UnsetType = UNSET


@verb("delegate", auth="local", agents=True, writes=True, group="Work", on="none", names="run",
      says=(Line("{run:id}  asked of {owner}", "run"),
            Line("nothing was begun: a person was asked for it (`muster questions`)", "!run")),
      then=(Line("`muster await {run:id}` waits for its result.", "run"),))  # fmt: skip
def delegate(core: Core, call: Call, ask: Delegate) -> Delegated:
    """Hand on work to an agent of the fleet; the answer is the id of its run, at once.

    For agents: within `may: {delegate: …}` of their task's spec, or a grant of `delegate` to this
    machine. `muster await` waits for the result, `muster withdraw` takes it back.

        muster delegate 'why do the tests fail on macos?' --agent claude --machine mac2
        muster delegate 'fix them' --agent claude --repo main --base fix/tests --timeout 20m
    """
    _check_here(call)
    part, asker = core.part(Delegations), call.task or call.session
    sources, denied, within = set[str](), None, dict[str, Any]()
    try:
        every = part.sources(call.task)
        sources, within = {source.id for source in every}, narrowed(every[0].bounds)
    except Denied as error:
        if not call.session:
            raise
        denied = error
    if len(ask.key) > KEY_CHARS_MAX:
        raise Malformed(f"a key has at most {KEY_CHARS_MAX} characters, this one {len(ask.key)}")
    text, repo = _text(core, ask, call.actor, within), ask.repo
    if text_size(text) > DELEGATED_SPEC_BYTES_MAX:
        raise Malformed(
            f"what is handed on takes {text_size(text)} bytes, at most {DELEGATED_SPEC_BYTES_MAX}; "
            "put long texts into files of a repository"
        )
    spec = checks.admit(text.encode(), fleet(core), repo=repo)
    repo, base = repo or spec.repo or "", ask.base or spec.base or ""
    if base and not repo:
        raise Malformed("a base is a branch of a repository: say which, with --repo")
    if known := _known(core, part, ask.key, asker, sources, (text, repo, base)):
        return Delegated(known.run, False, core.membership.name_of(known.owner))
    owner = _owner(core, spec)
    who = (call.task, call.session, ask.key, call.actor)
    try:
        if denied is not None:
            raise denied
        run = part.hand_on(spec, text, repo, base, owner, *who)
    except Denied as error:
        if not call.session:
            raise
        return _proposed(core, call, error, spec, text, repo, base)
    return Delegated(run, True, core.membership.name_of(owner))


def _proposed(  # noqa: PLR0917 - what is proposed, and why
    core: Core, call: Call, denied: Denied, spec: Spec, text: str, repo: str, base: str
) -> Delegated:
    """What a session proposes, or came of that. Raises: `denied` where too much waits already."""
    part, content = core.part(Proposals), content_of(spec, repo, base)
    known = part.same(call.session, content)
    if known is not None and known.run:
        return Delegated(known.run, False, known.owner)
    made = known or part.propose(
        call.session, call.actor, str(denied), spec.name, text, repo, base, content
    )
    if made is None:
        raise denied
    return Delegated("", known is None, "", proposed(made))


def _check_here(call: Call) -> None:
    """Raises: Denied where an agent is not on this machine."""
    if not call.local:
        raise Denied(
            f"{call.verb} is for agents, each on its own machine; a person says `muster run`"
        )


def _text(core: Core, ask: Delegate, actor: str, within: dict[str, Any]) -> str:
    """The spec of what is asked for; of a prompt with what its asker's own order says of memory and
    budget.
    """
    prompt = " ".join(ask.text).strip()
    if bool(prompt) == bool(ask.spec):
        raise Malformed("say what is to be done: a prompt, or a whole spec with --spec")
    if ask.spec:
        other = [n for n in ("agent", "machine", "label", "deliver", "check", "timeout")
                 if getattr(ask, n)]  # fmt: skip
        if other:
            raise Malformed(f"--{other[0]} does not go with --spec: say it in the spec")
        return ask.spec
    agents = list(ask.agent) or _agents(core, actor)
    # A prompt refers to nothing: whatever it says is its own. Source is the shell's.
    do = prompt if agents == [SHELL] else prompt.replace("${", "$${")
    phase: dict[str, Any] = {"agent": agents, "do": do, **within}
    needs = {"machine": list(ask.machine), "label": list(ask.label)}
    if any(needs.values()):
        phase["needs"] = {name: value for name, value in needs.items() if value}
    if ask.deliver:
        phase["deliver"] = list(ask.deliver)
    if ask.check or not ask.deliver:
        phase["check"] = ask.check or UNCHECKED
    if ask.timeout:
        phase["timeout"] = ask.timeout
    whole = {"muster": 1, "name": _NAME, **({"repo": ask.repo} if ask.repo else {}),
             "phases": {_PHASE: phase}}  # fmt: skip
    return _yaml(whole)


def _yaml(value: Any, depth: int = 0) -> str:
    """A mapping as YAML that people read; what is no mapping is in JSON, which YAML contains."""
    lines = []
    for name, each in value.items():
        if isinstance(each, dict):
            lines.append(f"{'  ' * depth}{name}:\n{_yaml(each, depth + 1)}")
        else:
            lines.append(f"{'  ' * depth}{name}: {json.dumps(each, ensure_ascii=False)}\n")
    return "".join(lines)


def _agents(core: Core, actor: str) -> list[str]:
    """Whoever asks says nobody: one of its own kind, else any that is logged in, by its name."""
    own, _, _ = actor.rpartition("@")
    there: dict[str, None] = {own: None} if own and own != SHELL else {}
    for facts in core.roster.facts.values():
        for agent in sorted(facts.agents):
            if agent not in (SHELL, NOOP) and facts.logins.get(agent) != LOGGED_OUT:
                there[agent] = None
    if not there:
        raise NotFound(
            "no machine of the fleet has an agent program that can be asked; `muster agents` lists "
            "what there is"
        )
    return list(there)[:16]


def _known(  # noqa: PLR0917 - who asks, and for what
    core: Core, part: Delegations, key: str, asker: str, sources: set[str],
    content: tuple[str, str, str],
) -> DelegationRow | None:  # fmt: skip
    """What was asked for already. Raises: Conflict where a key is that of something else."""
    if key:
        row = part.known(asker, key)
        if row is not None and _content(part, row) != content:
            raise Conflict(
                f"the key {shown(key)} is that of run {row.run[:12]}, which is about something "
                "else: take another key"
            )
        return row
    rows = core.tables.rows(
        DELEGATION, writer=core.machine, order=("-at_ms", "-seq"), limit=_LOOKED_MAX
    )
    for row in rows:
        same = row.source in sources and row.session in ("", asker) and not row.withdrawn
        if same and part.state(row) in ("asked", "open") and _content(part, row) == content:
            return row
    return None


def _content(part: Delegations, row: DelegationRow) -> tuple[str, str, str]:
    body = part.body(row)
    return body.spec, body.repo, body.base


def _owner(core: Core, spec: Spec) -> MachineId:
    """Who is to own the run: the one machine that it is for, so that it goes on whoever sleeps;
    else a hub that is here, else we do.
    """
    named = {m for p in spec.phases.values() for m in (listed(p.needs.machine) if p.needs else ())}
    wanted = [core.roster.find(name).machine for name in named] if len(named) == 1 else []
    wanted += core.leads()
    for machine in wanted:
        facts = core.roster.facts.get(machine)
        if facts is not None and (version_of(facts.muster) or ()) >= ORDER_SINCE:
            return machine
    return core.machine


class OfRun(Request, frozen=True):
    run: Annotated[str, pos("the run that was handed on", kind="run")]
    reason: Annotated[str, opt("why, for the log", empty=True)] = ""


class Withdrawn(Struct, frozen=True):
    run: str


@verb("withdraw", auth="local", agents=True, writes=True, group="Work", on="none",
      says=(Line("run {run:id} is withdrawn"),))  # fmt: skip
def withdraw(core: Core, call: Call, ask: OfRun) -> Withdrawn:
    """Take back work that was handed on from here: its run is cancelled, or never begins.

    An agent of a task takes back what that task handed on, and nothing else.

        muster withdraw 1ae7 --reason 'the tests pass again'
    """
    _check_here(call)
    part, row = core.part(Delegations), asked_here(core, ask.run)
    state = part.state(row)
    if (call.task or call.session) and not _is_its_own(part, call, row):
        raise Denied(f"run {row.run[:12]} was handed on by somebody else, who alone takes it back")
    if state not in ("asked", "open") or row.withdrawn:
        raise Conflict(f"run {row.run[:12]} is {state} already; nothing was changed")
    part.withdraw(row, ask.reason[:REASON_CHARS_MAX], call.actor)
    return Withdrawn(row.run)


def _is_its_own(part: Delegations, call: Call, row: DelegationRow) -> bool:
    """Whether the task or the session that asks handed it on."""
    if call.task:
        return row.source in {source.id for source in part.sources(call.task)}
    return row.session == call.session


def asked_here(core: Core, text: str) -> DelegationRow:
    """What was handed on from here, by the beginning of its run's id. Raises: NotFound."""
    found = begun_here(core, text)
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(sorted(row.run[:12] for row in found[:6]))
        raise Conflict(f"more than one run that was handed on begins so: {ids}")
    held = find_run(core, text)
    raise NotFound(
        f"run {held.row.run[:12]} was not handed on from here; whoever ordered it says "
        f"`muster cancel {held.row.run[:12]}`"
    )


def begun_here(core: Core, text: str) -> list[DelegationRow]:
    """All that was handed on from here and begins so."""
    rows: Iterable[DelegationRow] = core.tables.rows(
        DELEGATION, writer=core.machine, begins={"run": text}, order=("run",), limit=8
    )
    return list(rows)
