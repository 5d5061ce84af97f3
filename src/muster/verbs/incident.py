"""What a person must see: incidents, forks among them, and the word that a person has looked.

Rule 1: what a machine says is wrong is its word, and shown with its name.
Rule 2: who says much does not crowd out what others say: where a list is cut, each machine's
gravest and newest come first, our own before those of others.
Rule 3: what somebody acknowledged needs no person any more, until it is told again. A fork is an
incident of every machine that holds its proof: acknowledged it is closed, and its stream stays as
it is: it ended where its branches part, everywhere, when the proof came.
Rule 4: what several machines tell of one thing is one incident, shown with all of them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from muster.duration import duration_of
from muster.errors import Conflict, Denied, Exhausted, Malformed, NotFound, Refused
from muster.fleet import kinds
from muster.fleet.acknowledgement import VERB
from muster.fleet.folds import ACKNOWLEDGED, INCIDENT, IncidentRow
from muster.fleet.incident import SEVERITIES, Looked, called_by, fits, is_shared, key_of
from muster.fleet.silence_fold import NOTIFY
from muster.fleet.until import until_ms
from muster.limits import ACKNOWLEDGED_MS_MAX
from muster.log.stream import FLEET, StreamName
from muster.node.incidents import name
from muster.node.services.health import DISK_FULL
from muster.node.verb import Column, Line
from muster.verbs.declaration import Call, Core, Nothing, Request, opt, pos, verb
from muster.verbs.listing import Rows, say_cut

SHOWN_MAX: Final = 500
# What a line of a terminal shows; the rest is read with --json.
_TITLE_CHARS_MAX: Final = 1_000
_ID_CHARS_MIN: Final = 4
_RANK: Final = {severity: -rank for rank, severity in enumerate(SEVERITIES)}


class Incidents(Request, frozen=True):
    limit: Annotated[Rows, opt("show so many at most")] = None


class Incident(Struct, frozen=True):
    """What one machine says is wrong, or was; `stream` is where it said so, or what it is about.

    `id` is what it is acknowledged by while it is open, "" for what no entry says; `by` is who did,
    and `until_ms` until when, 0 where that is until it is told again. `seen_by` are all that tell
    of it, `flaps` how often it began again at once; `silenced_ms` is until when nobody is called,
    and `notified` how many steps of people were told.
    """

    stream: str
    key: str
    open: int
    severity: str
    title: str
    detail: str
    times: int
    opened_ms: int
    t_ms: int
    machine: str
    id: str = ""
    by: str = ""
    note: str = ""
    until_ms: int = 0
    seen_by: tuple[str, ...] = ()
    flaps: int = 0
    silenced_ms: int = 0
    notified: int = 0


@verb(
    "incidents", watches=("incident",), names="id", auth="local", group="What is true",
    harmless=True,
    then=(
        Line("`muster silences` says who silenced it and until when.", "open silenced_ms"),
        Line("`muster acknowledge {id:id}` says that you looked at it.", "id open !by"),
    ),
)  # fmt: skip
def incidents(core: Core, call: Call, ask: Incidents) -> list[Incident]:
    """What a person must see.

    What is open and nobody acknowledged comes first; what somebody silenced is listed all the same
    (`muster silences`).

        muster incidents
    """
    limit = ask.limit or SHOWN_MAX
    found, cut = listed(core, limit)
    if cut:
        say_cut(call, limit, "incidents", "--limit shows more")
    return sorted(found, key=_gravest)


class Fork(Struct, frozen=True):
    """A fork by its name; `beyond` entries are kept as evidence, `proof` is "" without one here."""

    fork: str
    stream: str
    machine: str
    common: int
    beyond: int = 0
    proof: str = ""
    state: Literal["open", "closed"] = "open"
    by: str = ""
    note: str = ""
    t_ms: int = 0


@verb(
    "forks", names="fork", auth="local", group="What is true", harmless=True,
    nothing="No stream forked.",
    columns=(
        Column("state", form="state"), Column("fork", form="id"), Column("machine"),
        Column("common", "entries kept", rank=3), Column("beyond", rank=2), Column("by", rank=1),
        Column("note", least=16),
    ),
)  # fmt: skip
def forks(core: Core, call: Call, ask: Nothing) -> list[Fork]:
    """Streams whose own key wrote two histories, and who looked at them.

    Every fork that this machine can prove or that an operator acknowledged, open ones first.

        muster forks
    """
    proved = core.replication.forks.proved()
    found = dict(proved)
    for key in core.roster.operators_ever:
        for incident, about, common in core.tables.distinct(
            ACKNOWLEDGED, ("incident", "about", "common"), signer=key, fork=1
        ):
            if core.roster.acknowledged(key, incident):
                found[incident] = kinds.Fork(common, about)
    looked = core.incidents.acknowledged(found, core.now.wall_ms)
    rows = []
    for fork, what in found.items():
        beyond, proof = 0, ""
        if fork in proved:
            raw = core.replication.forks.proofs()[StreamName.parse(what.stream)]
            held = core.tables.query("select held from stream where name = ?", (what.stream,))
            beyond = max(0, int(str(held[0][0])) - what.common) if held else 0
            proof = hashlib.sha256(raw).hexdigest()
        state: Literal["open", "closed"] = "closed" if fork in looked else "open"
        who, machine = looked.get(fork, Looked()), core.membership.name_of(what.stream[:64])
        said = (who.by, who.note, who.issued_ms)
        rows.append(Fork(fork, what.stream, machine, what.common, beyond, proof, state, *said))
    return sorted(rows, key=lambda each: (each.state != "open", each.stream, each.common))


class Acknowledge(Request, frozen=True):
    incident: Annotated[
        str, pos("the incident's id (its beginning is enough) or its key", kind="incident")
    ]
    note: Annotated[str, pos("what you found, for the log", max_length=500, empty=True)] = ""
    until: Annotated[
        str, opt("for how long it needs nobody else, however often it is told again: 8h or a time",
                 max_length=40)
    ] = ""  # fmt: skip


class Acknowledged(Struct, frozen=True):
    """Of a fork the entries of its stream that stay."""

    incident: str
    title: str
    entry: str
    common: int | UnsetType = UNSET


@verb(VERB, auth="order", object="incident", group="What is true", on="one")
def acknowledge(core: Core, call: Call, ask: Acknowledge) -> Acknowledged:
    """Say that you looked at an incident: it needs nobody any more, until it is told again.

    A fork is closed by it, for good: its stream stays where it was cut. With --until nobody is
    called for that long, and then again if it is open still.

        muster acknowledge 3fa1
        muster acknowledge 3fa1 --until 8h
        muster acknowledge 7d5e 'a backup was started twice'
    """
    if ask.until:
        check_until(core, ask.until, ACKNOWLEDGED_MS_MAX)
    what = core.replication.forks.proved().get(ask.incident)
    if what is not None and call.operator not in core.roster.operators:
        raise Denied("only an operator may acknowledge a fork, not whom an operator let do so")
    looked = core.incidents.acknowledged({ask.incident}, core.now.wall_ms)
    # A word with a time is said again before it ends, or with another one.
    if looked and not ask.until and not looked[ask.incident].until_ms:
        by = looked[ask.incident].by
        raise Conflict(f"incident {ask.incident[:12]} was acknowledged by {by} already")
    # What is signed is the whole id; `target` finds it by its beginning.
    found = meant(core, ask.incident)
    if found.id != ask.incident:
        raise Refused(f"{ask.incident[:40]!r} is not the whole id of an incident")
    of = what or kinds.Told(found.key, found.stream, found.t_ms)
    if what is not None and ask.until:
        raise Refused("a fork is closed for good: leave --until out")
    entry = call.write(kinds.IncidentAcknowledge(ask.note, of, call.statement, ask.until))
    return Acknowledged(found.id, found.title, entry.id.hex(), what.common if what else UNSET)


def check_until(core: Core, text: str, most_ms: int, *, ends: bool = False) -> int:
    """When that is. Raises: Malformed, Refused where it is over already or too far away."""
    now_ms = core.now.wall_ms
    end_ms = until_ms(text, now_ms)
    if end_ms <= now_ms and not (ends and duration_of(text) == 0):
        raise Malformed(f"--until {text!r} is over already; write 8h or 2026-11-20T23:00")
    if end_ms > now_ms + most_ms:
        raise Malformed(f"--until {text!r} is more than {most_ms // 86_400_000} days away")
    return end_ms


def meant(core: Core, text: str) -> Incident:
    """The open incident whose id begins so, or whose key that is, with `/MACHINE` where it is about
    one. Raises: NotFound, Refused where it may be several.
    """
    every = [each for each in listed(core, SHOWN_MAX, merged=False)[0] if each.id]
    named = [each for each in every if text in _names(each)]
    # Of several who tell of the same any will do: the word about one counts for all.
    found = named[:1] if named and is_shared(named[0].key) else named
    if not found and len(text) >= _ID_CHARS_MIN:
        found = [each for each in every if each.id.startswith(text)]
    if not found:
        raise NotFound(f"no open incident begins with {text[:40]!r}; `muster incidents` lists them")
    if len(found) > 1:
        raise Refused(f"more than one incident begins with {text[:40]!r}; give more of its id")
    return found[0]


def _names(each: Incident) -> tuple[str, ...]:
    return (each.key, called_by(each.key, each.machine))


def _gravest(each: Incident) -> tuple[bool, bool, bool, int]:
    return not each.open, bool(each.by), each.severity != "critical", -each.t_ms


def listed(
    core: Core, limit: int, *, waiting: bool = False, merged: bool = True
) -> tuple[list[Incident], bool]:
    """So many incidents that every machine is heard; and whether there are more.

    `waiting` are only those that are open and that nobody acknowledged. Where they are not
    `merged`, what several tell of is there for each of them.
    """
    every = [*_standing_still(core), *_forked(core)]
    cut = False
    where: dict[str, Any] = {"open": 1} if waiting else {}
    for writer in sorted({stream.machine for stream in core.log.streams()}):
        most = limit + 1
        while True:
            rows = core.tables.rows(
                INCIDENT, writer=writer, order=("-open", "-t_ms"), limit=most, **where
            )
            found = [e for e in _newest(core, rows, writer) if not waiting or (e.open and not e.by)]
            if len(rows) < most or len(found) > limit or most > SHOWN_MAX:
                break
            # Those that were acknowledged took the room of older ones.
            most *= 4
        cut = cut or len(rows) == most
        every += found
    every = sorted(_merged(core, every) if merged else every, key=_gravest)
    said, turn = Counter[str](), dict[int, tuple[int, bool]]()
    for number, each in enumerate(every):
        turn[number] = (said[each.machine], each.machine != core.name)
        said[each.machine] += 1
    chosen = sorted(range(len(every)), key=lambda number: (turn[number], number))
    found = [_with_notified(core, every[number]) for number in chosen[:limit]]
    return found, cut or len(every) > limit


def _newest(core: Core, rows: list[IncidentRow], writer: str) -> list[Incident]:
    """Of each incident of a machine what it said last: it may go on in another incarnation."""
    found, machine = list[IncidentRow](), core.membership.name_of(writer)
    for key in dict.fromkeys(row.key for row in rows):
        same = core.tables.rows(INCIDENT, writer=writer, key=key)
        found.append(max(same, key=lambda each: each.t_ms))
    looked = core.incidents.looked(found, core.now.wall_ms)
    return [_shown(row, machine, looked.get(name(row), Looked())) for row in found]


def _shown(row: IncidentRow, machine: str, looked: Looked) -> Incident:
    return Incident(
        stream=str(row.stream), key=row.key, open=row.open, severity=row.severity,
        title=row.title[:_TITLE_CHARS_MAX], detail=row.detail, times=row.times,
        opened_ms=row.opened_ms, t_ms=row.t_ms, machine=machine, id=name(row) if row.open else "",
        by=looked.by, note=looked.note, until_ms=looked.until_ms if looked.by else 0,
        seen_by=(machine,), flaps=row.flaps,
    )  # fmt: skip


def _with_notified(core: Core, each: Incident) -> Incident:
    """How many steps people were told of it, as the machines say that tell them."""
    if not each.id:
        return each
    rows = core.tables.rows(NOTIFY, key=key_of(each.key, each.stream.partition("/")[0]))
    levels = {r.level for r in rows if r.ok and r.level and r.t_ms >= each.opened_ms}
    return replace(each, notified=len(levels))


def _merged(core: Core, every: list[Incident]) -> Iterator[Incident]:
    """Those that several machines tell of once; and whether nobody is to be called for them."""
    groups = dict[tuple[object, ...], list[Incident]]()
    for number, each in enumerate(every):
        # What is over is each machine's own past.
        alike = is_shared(each.key) and each.open
        groups.setdefault((each.key,) if alike else (number,), []).append(each)
    silences = [
        s for s in core.incidents.silences(core.now.wall_ms) if s.until_ms > core.now.wall_ms
    ]
    for found in groups.values():
        found.sort(key=lambda each: (bool(each.by), _RANK[each.severity], -each.t_ms))
        first = found[0]
        called = {name for each in found for name in _names(each)}
        until = [s.until_ms for s in silences if any(fits(s.fits, name) for name in called)]
        yield replace(
            first,
            seen_by=tuple(dict.fromkeys(each.machine for each in found)),
            times=sum(each.times for each in found),
            opened_ms=min(each.opened_ms for each in found),
            flaps=max(each.flaps for each in found),
            silenced_ms=max(until, default=0),
        )


def _standing_still(core: Core) -> list[Incident]:
    """That the disk is full now: no entry can say so."""
    try:
        core.store.check_room()
    except Exhausted as error:
        title, now_ms = f"{core.name} stands still: {error}", core.now.wall_ms
        own = str(core.membership.own(FLEET))
        return [Incident(own, DISK_FULL, 1, "critical", title, "", 1, now_ms, now_ms, core.name)]
    return []


def _forked(core: Core) -> list[Incident]:
    """The forks that no operator acknowledged."""
    found = []
    proved = core.replication.forks.proved()
    looked = core.incidents.acknowledged(proved, core.now.wall_ms)
    for fork in proved.keys() - looked.keys():
        what = proved[fork]
        since = core.tables.query(
            "select ms from fork join stream on stream.id = fork.stream where name = ?",
            (what.stream,),
        )
        t_ms, machine = int(str(since[0][0])) if since else 0, what.stream.partition("/")[0]
        title = (
            f"a stream of {core.membership.name_of(machine)} forked after {what.common} entries: "
            f"find out why its key wrote twice, then `muster acknowledge {fork[:12]}`"
        )
        key, stream = f"forked-{fork[:16]}", what.stream
        found.append(
            Incident(stream, key, 1, "critical", title, stream, 1, t_ms, t_ms, core.name, fork)
        )
    return found
