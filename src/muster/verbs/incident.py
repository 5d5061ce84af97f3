"""`muster incidents`: what a person must see.

Rule 1: what a machine says is wrong is its word, and shown with its name.
Rule 2: who says much does not crowd out what others say: where a list is cut, each machine's
gravest and newest come first, our own before those of others.
"""

from collections import Counter
from typing import Any, Final

from muster.errors import Exhausted
from muster.log.stream import FLEET
from muster.node.call import Call
from muster.node.core import Core
from muster.node.health import DISK_FULL
from muster.verbs import fork
from muster.verbs.listing import say_cut, shown_max

SHOWN_MAX: Final = 500
# What a line of a terminal shows; the rest is read with --json.
_TITLE_CHARS_MAX: Final = 1_000


def incidents(core: Core, call: Call) -> list[dict[str, Any]]:
    """What a person must see, what is open first."""
    limit = shown_max(call, SHOWN_MAX)
    found, cut = listed(core, limit)
    if cut:
        say_cut(call, limit, "incidents", "--limit shows more")
    return sorted(found, key=lambda r: (not r["open"], r["severity"] != "critical", -r["t_ms"]))


def listed(core: Core, limit: int, *, only_open: bool = False) -> tuple[list[dict[str, Any]], bool]:
    """So many incidents that every machine is heard; and whether there are more."""
    every = [*_standing_still(core), *fork.incidents(core)]
    cut = False
    where: dict[str, Any] = {"open": 1} if only_open else {}
    for writer in sorted({stream.machine for stream in core.store.streams()}):
        rows = core.store.rows(
            "fleet_incident", writer=writer, order=("-open", "-t_ms"), limit=limit + 1, **where
        )
        cut = cut or len(rows) > limit
        every += [
            {**row, "title": str(row["title"])[:_TITLE_CHARS_MAX],
             "machine": core.standing.name_of(writer)}
            for row in _newest(core, rows, writer)
            if row["open"] or not only_open
        ]  # fmt: skip
    every.sort(key=lambda r: (not r["open"], r["severity"] != "critical", -int(r["t_ms"])))
    said, turn = Counter[str](), dict[int, tuple[int, bool]]()
    for number, each in enumerate(every):
        turn[number] = (said[each["machine"]], each["machine"] != core.name)
        said[each["machine"]] += 1
    chosen = sorted(range(len(every)), key=lambda number: (turn[number], number))
    return [every[number] for number in chosen[:limit]], cut or len(every) > limit


def _newest(core: Core, rows: list[dict[str, Any]], writer: str) -> list[dict[str, Any]]:
    """Of each incident of a machine what it said last: it may go on in another incarnation."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = str(row["key"])
        if key not in found:
            same = core.store.rows("fleet_incident", writer=writer, key=key)
            found[key] = max(same, key=lambda each: int(str(each["t_ms"])))
    return list(found.values())


def _standing_still(core: Core) -> list[dict[str, Any]]:
    """That the disk is full now: no entry can say so."""
    try:
        core.store.check_room()
    except Exhausted as error:
        return [
            {
                "stream": str(core.standing.own(FLEET)),
                "key": DISK_FULL,
                "severity": "critical",
                "title": f"{core.name} stands still: {error}",
                "detail": "",
                "open": 1,
                "times": 1,
                "opened_ms": core.now.wall_ms,
                "t_ms": core.now.wall_ms,
                "machine": core.name,
            }
        ]
    return []
