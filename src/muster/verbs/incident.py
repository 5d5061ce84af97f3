"""`muster incidents`: what a person must see.

Rule 1: what a machine says is wrong is its word, and shown with its name.
Rule 2: who says much does not crowd out what others say: where a list is cut, each machine's
gravest and newest come first, our own before those of others.
"""

from collections import Counter
from typing import Annotated, Any, Final

from msgspec import Struct

from muster.errors import Exhausted
from muster.log.stream import FLEET
from muster.node.services.health import DISK_FULL
from muster.verbs.declaration import Call, Core, Request, opt, verb
from muster.verbs.fork import proved
from muster.verbs.listing import Rows, say_cut

SHOWN_MAX: Final = 500
# What a line of a terminal shows; the rest is read with --json.
_TITLE_CHARS_MAX: Final = 1_000


class Incidents(Request, frozen=True):
    limit: Annotated[Rows, opt("show so many at most")] = None


class Incident(Struct, frozen=True):
    """What one machine says is wrong, or was; `stream` is where it said so, or what it is about."""

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


@verb("incidents", auth="local", group="What is true", harmless=True)
def incidents(core: Core, call: Call, ask: Incidents) -> list[Incident]:
    """What a person must see.

    What is open comes first.

        muster incidents
    """
    limit = ask.limit or SHOWN_MAX
    found, cut = listed(core, limit)
    if cut:
        say_cut(call, limit, "incidents", "--limit shows more")
    return sorted(found, key=_gravest)


def _gravest(each: Incident) -> tuple[bool, bool, int]:
    return not each.open, each.severity != "critical", -each.t_ms


def listed(core: Core, limit: int, *, only_open: bool = False) -> tuple[list[Incident], bool]:
    """So many incidents that every machine is heard; and whether there are more."""
    every = [*_standing_still(core), *_forked(core)]
    cut = False
    where: dict[str, Any] = {"open": 1} if only_open else {}
    for writer in sorted({stream.machine for stream in core.store.streams()}):
        rows = core.store.rows(
            "fleet_incident", writer=writer, order=("-open", "-t_ms"), limit=limit + 1, **where
        )
        cut = cut or len(rows) > limit
        every += [each for each in _newest(core, rows, writer) if each.open or not only_open]
    every.sort(key=_gravest)
    said, turn = Counter[str](), dict[int, tuple[int, bool]]()
    for number, each in enumerate(every):
        turn[number] = (said[each.machine], each.machine != core.name)
        said[each.machine] += 1
    chosen = sorted(range(len(every)), key=lambda number: (turn[number], number))
    return [every[number] for number in chosen[:limit]], cut or len(every) > limit


def _newest(core: Core, rows: list[dict[str, Any]], writer: str) -> list[Incident]:
    """Of each incident of a machine what it said last: it may go on in another incarnation."""
    found, name = [], core.membership.name_of(writer)
    for key in dict.fromkeys(str(row["key"]) for row in rows):
        same = core.store.rows("fleet_incident", writer=writer, key=key)
        row: dict[str, Any] = max(same, key=lambda each: int(str(each["t_ms"])))
        found.append(Incident(**{**row, "title": row["title"][:_TITLE_CHARS_MAX]}, machine=name))
    return found


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
    """The forks that nobody has closed."""
    found = []
    for each in proved(core):
        if each.fork in core.roster.closed:
            continue
        since = core.store.query(
            "select ms from fork join stream on stream.id = fork.stream where name = ?",
            (each.stream,),
        )
        t_ms = int(str(since[0][0])) if since else 0
        title = (
            f"a stream of {each.machine} forked after {each.common} entries: find out why "
            f"its key wrote twice, then `muster close {each.fork[:12]}`"
        )
        key, stream = f"forked-{each.fork[:16]}", each.stream
        found.append(Incident(stream, key, 1, "critical", title, stream, 1, t_ms, t_ms, core.name))
    return found
