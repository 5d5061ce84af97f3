"""What doctor asks the daemon: the past of this machine, its links, clocks, tasks and incidents.

Rule: the daemon is asked once whether it answers at all, with a short bound: one that hangs is
named by its process, and asked nothing more.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from msgspec import convert

from muster.errors import MusterError, Silent
from muster.node.exposed import Exposed, sentence
from muster.node.host import lock
from muster.node.host.ending import CUT_OFF
from muster.node.host.notify_store import NotifyStore
from muster.verbs.checks import Check, tried
from muster.verbs.daemon import ANSWER_S
from muster.verbs.declaration import Context

# The check that comes first, and the incidents that are told by it.
PAST: Final = "past"
GRAVE: Final = ("set-back", "clone-")
SKEW_MS_MAX: Final = 30_000
# What keeps one task keeps the others.
WAITING_LOOKED_AT: Final = 5


def hung(context: Context) -> int | None:
    """The process of a daemon that is there and does not answer, 0 where it cannot be told which;
    None where it answers, or none is there.
    """
    found = lock.holder(context.home.lock)
    if found is None:
        return None
    try:
        context.ask("status", {}, within_s=ANSWER_S)
    except Silent:
        return found
    except MusterError:
        # Why it cannot be asked is said by the check of it.
        return None
    return None


def of_hung(context: Context, pid: int) -> Check:
    """A daemon that is there and says nothing."""
    mend = f"`muster down` ends it; where that fails, `kill -9 {pid}`; then `muster up --detach`"
    if not pid:
        mend = f"`fuser {context.home.lock}` names its process, `kill -9` ends that"
    who = f"process {pid}" if pid else f"a process that holds {context.home.lock}"
    return Check("daemon", "wrong", f"it hangs: {who} gave no answer in {ANSWER_S:g} s", mend)


def of_daemon(context: Context) -> Iterator[Check]:
    try:
        status = context.ask("status", {})
    except MusterError as error:
        yield Check("daemon", "wrong", str(error), "muster up --detach")
        return
    yield Check("daemon", "ok", f"{status['name']} answers")
    if status["counters"].get(CUT_OFF):
        what = "when it was to end the last time something hung, and it was cut off"
        yield Check("daemon", "note", what, "its log says what hung; `muster status` names the log")
    if status["revoked"]:
        yield Check(
            "membership", "wrong", "this machine is no member any more: nothing it does counts",
            "`muster machine leave` sets its home aside; then `muster join` with a new invitation",
        )  # fmt: skip
        # Nobody links to it or vouches for it any more, and no advice on that would help.
        return
    yield from tried(PAST, "", partial(_past, status))
    if not status.get("operators", 1):
        yield Check(
            "operators", "wrong", "nobody can order anything: the last operator was revoked",
            "where authority.seed lies, move the old operator.seed away, then `muster operator "
            "add NAME --here`",
        )  # fmt: skip
    yield from tried("links", "", partial(_links, context))
    yield from tried("exposed", "", partial(_exposed, context))
    yield from tried("NATS server", "", partial(_nats_server, context))
    yield from tried("clock", "", partial(_skews, context))
    yield from tried("witnesses", "", partial(_witnesses, status))
    yield from tried("work", "", partial(_waiting, context))
    yield from tried("runs", "", partial(_ownerless, context))
    yield from tried("stand-in", "", partial(_standins, context))
    yield from tried("incident", "", partial(_incidents, status))
    yield from tried("notify", "", partial(_pagers, context, str(status["name"])))


def _witnesses(status: Mapping[str, Any]) -> Iterator[Check]:
    exposed = int(status["exposed"])
    alone = status["machines"]["known"] < 2
    yield Check(
        "witnesses",
        "note" if exposed else "ok",
        f"no other machine vouched for {exposed} of its own entries yet" if exposed
        else "another machine vouched for every own entry",
        "" if not exposed else "let a second machine join: `muster invite NAME`" if alone
        else "a link to any other machine closes this gap",
    )  # fmt: skip


def _incidents(status: Mapping[str, Any]) -> Iterator[Check]:
    for incident in status["incidents"]:
        if incident["key"].startswith(GRAVE):
            continue
        state = "wrong" if incident["severity"] == "critical" else "note"
        own = incident["machine"] == status["name"]
        who = "" if own else f"{incident['machine']}: "
        yield Check("incident", state, f"{who}{incident['title']}", "muster incidents")


def _waiting(context: Context) -> Iterator[Check]:
    """Tasks that a machine could take, and that something here keeps from it."""
    queued = [task for task in context.ask("tasks", {}) if task["state"] == "queued"]
    for task in queued[:WAITING_LOOKED_AT]:
        now = context.ask("why", {"task": task["task"]}).get("now") or {}
        if now.get("reason") and any(each["fits"] for each in now.get("candidates") or ()):
            what = f"{task['phase'] or 'a task'} waits: {now['reason']}"
            yield Check("work", "note", what, f"muster why {task['task'][:12]}")


def _ownerless(context: Context) -> Iterator[Check]:
    """Runs that stand still because the machine that goes on with them is away."""
    runs = Counter(str(run["waits_for"]) for run in context.ask("runs", {}) if run.get("waits_for"))
    for owner, count in sorted(runs.items()):
        what = f"{count} run{'s wait' if count > 1 else ' waits'} for {owner}, which is away"
        mend = f"where {owner} is lost, `muster takeover {owner}` lets them go on at this machine, "
        yield Check("runs", "note", what, f"{mend}and `muster cancel RUN` ends one")


def _standins(context: Context) -> Iterator[Check]:
    """Whose work goes on elsewhere by itself, and whether whoever goes on with it is there."""
    machines = context.ask("machines", {})
    states = {each["name"]: each["state"] for each in machines}
    for each in machines:
        if by := each.get("stand_in"):
            name, how = each["name"], states.get(by, "unknown")
            what, mend = f"{by} stands in for {name}", ""
            if how not in ("up", "here"):
                what += f", and is {how}"
                mend = f"name one that is always on: `muster standin {name} NAME`"
            yield Check("stand-in", "note" if mend else "ok", what, mend)


def _pagers(context: Context, name: str) -> Iterator[Check]:
    """Who tells people what happens: a name that nobody has tells nobody anything."""
    pagers = context.home.config().notify.pagers
    known = {str(each["name"]) for each in context.ask("machines", {})}
    if strange := [each for each in pagers if each not in known]:
        what = f"`notify.pagers` names {', '.join(strange)}, and no machine is called so"
        mend = "write names of `muster machines`, then `muster down` and `muster up --detach`"
        yield Check("notify", "wrong", what, mend)
    services = NotifyStore(context.home.path).known().service
    if services and pagers and name not in pagers:
        what = f"{', '.join(services)} are here, but others tell people: {', '.join(pagers)}"
        yield Check("notify", "note", what, "`notify.pagers` in config.toml says who does")


def _past(status: Mapping[str, Any]) -> Iterator[Check]:
    doubt = status.get("doubt")
    if doubt is not None:
        waits = f"; it waits for {doubt['awaits']}" if doubt["waits"] else ""
        mend = "if you know why, and that no copy of it runs: `muster vouch`, as the operator"
        yield Check(
            PAST, "wrong",
            f"this machine does not know all of its own past: {' '.join(doubt['reasons'])}{waits}",
            mend if doubt["id"] else "stop one of the two copies, or revoke it and join anew",
        )  # fmt: skip
    for incident in status["incidents"]:
        own = incident["machine"] == status["name"] and incident["key"] == "set-back"
        if incident["key"].startswith(GRAVE) and not (doubt is not None and own):
            # Any machine can say what it likes of another one.
            who = "" if incident["machine"] == status["name"] else f"{incident['machine']} says: "
            yield Check(PAST, "wrong", f"{who}{incident['title']}", "muster incidents")


def _links(context: Context) -> Iterator[Check]:
    machines = context.ask("machines", {})
    away = []
    for machine in machines:
        if machine["state"] == "away":
            # Why the likeliest way to it is none.
            errors = [str(way["error"]) for way in machine.get("ways", ()) if way["error"]]
            why = f" ({errors[0].removesuffix('; try later')})" if errors else ""
            away.append(f"{machine['name']}{why}")
    if away:
        yield Check("links", "note", f"away: {', '.join(away)}",
                    "they catch up by themselves when they are back; of one that moved, "
                    "`muster reach NAME HOST:PORT` tells this machine")  # fmt: skip
    else:
        yield Check("links", "ok", "nobody is away")
    relayed = [f"{m['name']} through {m['through']}" for m in machines if m.get("through")]
    if relayed:
        yield Check("links", "note", f"no direct way: {', '.join(relayed)}",
                    "all works, as long as that machine is up; `listen` in config.toml of either "
                    "opens a direct way")  # fmt: skip


def _exposed(context: Context) -> Iterator[Check]:
    """Who can reach which port of this machine."""
    machines = context.ask("machines", {})
    found = [m.get("listens") for m in machines if m["state"] == "here"]
    rows = [convert(each, Exposed) for each in found[0] or ()] if found else []
    heard, public = sentence(rows), any(row.whom == "public" and not row.error for row in rows)
    if public:
        text = f"PUBLIC: it listens at {heard}"
        mend = '`channel.http.listen = "auto"` in config.toml closes what is public; then `muster '
        yield Check("exposed", "note", text, f"{mend}down` and `muster up --detach`")
    else:
        nowhere = "no port is open to other machines: this one dials"
        yield Check("exposed", "ok", f"it listens at {heard}" if heard else nowhere)
    silent = [str(m["name"]) for m in machines if m.get("knocks") is False]
    if heard and silent:
        text = f"whoever dials it meets TLS, because {', '.join(silent)} did not say yet to knock"
        mend = "it hears nothing once they were here with this version; `muster revoke` takes out"
        yield Check("exposed", "note", text, f"{mend} who is gone for good")
    for row in rows:
        if row.error:
            yield Check("exposed", "note", f"it cannot listen at {row.address}: {row.error}",
                        "it is tried again every ten seconds")  # fmt: skip


def _nats_server(context: Context) -> Iterator[Check]:
    found = context.ask("engine", {})
    if found["state"] == "serves" and found["leaf_of"]:
        yield _leaf(found)
    elif found["state"] == "serves" and found["why"]:
        mend = "look at `muster engine --on` each of those that serve: two of three are needed"
        yield Check("NATS server", "wrong", f"mailboxes are not looked after: {found['why']}", mend)
    elif found["state"] == "serves":
        beside = "".join(f", with {name}" for name in found["beside"])
        what = f"it serves {found['machines']} at {found['address']}{beside}"
        yield Check("NATS server", "ok", what)
    elif found["state"] != "off":
        why = found["why"] or "it starts"
        mend = "mend that, or take it (`[nats]`) out of config.toml; it is tried again"
        yield Check("NATS server", "wrong", f"it does not run: {why}", mend)


def _leaf(found: Mapping[str, Any]) -> Check:
    """Of a server for this computer alone."""
    here = f"it serves this computer at {found['address']}"
    if found["linked"]:
        return Check("NATS server", "ok", f"{here}, linked to that of {found['leaf_of']}")
    why = f"{here}, not linked to that of {found['leaf_of']}: {found['why']}"
    return Check("NATS server", "note", why, "it is linked again by itself when that is reached")


def _skews(context: Context) -> Iterator[Check]:
    far = [
        (str(m["name"]), int(m["skew_ms"]))
        for m in context.ask("machines", {})
        if abs(int(m.get("skew_ms") or 0)) > SKEW_MS_MAX
    ]
    for name, skew_ms in far:
        mend = "let both take their time from the network (timedatectl set-ntp true)"
        yield Check("clock", "wrong", f"{name} is {skew_ms // 1000} s off from here", mend)
    if not far:
        yield Check("clock", "ok", "no linked machine is half a minute off")
