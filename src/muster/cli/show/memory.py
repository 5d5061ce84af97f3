"""What people read about what is known."""

from typing import Any, Final

from muster.cli.show import declared, listed
from muster.cli.text import Files, ago, block, clean, paint, short, state
from muster.node.verb import Column
from muster.printable import visible
from muster.verbs.table import VERBS


def memory(value: Any, _files: Files) -> str:
    if isinstance(value, dict):
        return _changed(value)
    return "\n\n".join(_version(each) for each in value) or "Nothing is known under that key there."


def remember(value: Any, _files: Files) -> str:
    """What was written down, and what else is known like it."""
    head = f"{short(value['version'])}  {clean(value['key'])}: {state(value['state'])}"
    like = [
        f"  like {paint(clean(each['key']), 'bold')} ({state(each['state'])}, "
        f"{short(each['version'])}): {clean(each['text'])}"
        for each in value.get("similar") or ()
    ]
    return "\n".join([head, *like])


_PHASES: Final = (
    Column("spec"), Column("phase"), Column("tasks"), Column("first_try", "at the first try"),
    Column("failed_tries", "failed tries"),
)  # fmt: skip
_RECORDS: Final = (
    Column("key", form="bold"), Column("state", form="state"), Column("shown"), Column("done"),
    Column("failed"), Column("version", form="id", rank=1),
)  # fmt: skip


def memories(value: Any, _files: Files) -> str:
    """The list; or, of --stats, the counts."""
    if isinstance(value, list):
        return declared(VERBS["memories"], value)
    told, done, failed = value["showings"], value["done"], value["failed"]
    again, refuted, unused = value["repeated"], value["refuted"], value["unused"]
    first = f"{told} attempts here were told something: {done} succeeded, {failed} failed"
    first += f", {again} of these for a reason that they had been told" if failed else ""
    second = f"{refuted} of the versions that were shown are refuted by now; {unused} records "
    second += "were shown to nobody here for 90 days."
    phases = listed(_PHASES, value["phases"], "No run has ended yet.")
    lines = [f"{first}.", second, "", phases]
    if value["records"]:
        lines += ["", listed(_RECORDS, value["records"], "")]
    if value["doubtful"]:
        lines += ["", "Shown often, and followed by failure more often than without; look at:"]
        lines.append(listed(_RECORDS, value["doubtful"], ""))
    return "\n".join(lines)


_SIGNS: Final = {"-": "red", "+": "green"}


def _changed(value: Any) -> str:
    """Both sides, and the lines between them."""
    scope = clean(value["scope"])
    name = paint(clean(value["key"]), "bold") + (f"  {scope}" if scope != "fleet" else "")
    sides = [f"{mark} {_side(value[side])}" for mark, side in (("-", "before"), ("+", "after"))]
    lines = [
        paint(visible(line), _SIGNS[line[0]]) if line[0] in _SIGNS else visible(line)
        for line in value["lines"]
    ]
    return "\n".join([name, *sides, "", *(lines or ["Its text is the same."])])


def _side(side: Any) -> str:
    ids, by = " ".join(map(short, side["versions"])), ", ".join(map(clean, side["from"]))
    parts = [clean(side["asked"]), state(side["state"]), by, ids]
    return "  ".join(part for part in parts if part)


def _version(each: Any) -> str:
    """A version whole, and what is known of who wrote it."""
    trust, claims = clean(each["trust"]), each.get("claims")
    if claims:
        # Its entry claims to be somebody else, and nothing proves it.
        trust += f", claims to be {clean(claims)}"
    tags, scope = ", ".join(map(clean, each["tags"])), clean(each["scope"])
    head = [
        paint(clean(each["key"]), "bold"),
        state(each["state"]),
        clean(each["from"]),
        ago(each["t_ms"]),
        short(each["version"]),
        f"[{trust}]",
        scope if scope != "fleet" else "",
        tags,
    ]
    lines = ["  ".join(part for part in head if part), block(each["text"])]
    shown = [
        f"{clean(who['actor'])} {ago(who['t_ms'])}"
        + (f" (task {short(who['task'])})" if who["task"] else "")
        for who in each.get("shown_to") or ()
    ]
    lines += [paint(f"    shown here to {', '.join(shown)}", "dim")] if shown else []
    return "\n".join(lines)
