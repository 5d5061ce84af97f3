"""What people read about this machine."""

from typing import Any

from muster.cli.text import Files, ago, clean, paint, pairs, short, state


def status(value: Any, files: Files) -> str:
    """What a person acts on; the rest with --verbose."""
    machines, unread, exposed = value["machines"], value["unread"], value["exposed"]
    settled = "" if value["settled"] else "asking the others where its own log ended"
    away = f", away: {clean(', '.join(machines['away']), 60)}" if machines["away"] else ""
    through = ", ".join(f"{name} by {hub}" for name, hub in (machines.get("through") or {}).items())
    works = ", ".join(f"{_phase(each)} ({short(each['task'])})" for each in value["works"][:8])
    lines = [
        *_alarms(value),
        paint(value["name"], "bold"),
        *_shut_out(value["revoked"]),
        *_ownerless(value),
        pairs(
            [
                ("starting", settled),
                ("fleet", f"{_count(machines['known'], 'machine')}{away}"),
                ("indirect", clean(through, 100)),
                ("runs", f"{value['runs']} open" if value["runs"] else ""),
                ("works on", works or "nothing"),
                ("inbox", f"{unread} unread (`muster inbox`)" if unread else ""),
                ("log", f"{_count(exposed, 'own entry', 'own entries')} that no other machine "
                 "has vouched for yet" if exposed else "another machine vouched for every entry"),
                *(_parts(value) if "verbose" in files else ()),
            ]
        ),
    ]  # fmt: skip
    if value["incidents"]:
        lines += ["", paint("Needs a person (`muster incidents`):", "bold")]
        lines += [f"  {state(i['severity'])}  {_incident(i, value)}" for i in value["incidents"]]
    return "\n".join(lines)


def _incident(each: Any, value: Any) -> str:
    """What is wrong, and who says so where it is another machine."""
    who = "" if each.get("machine") in (None, value["name"]) else f"{clean(each['machine'])}: "
    return who + clean(each["title"], 100)


def _parts(value: Any) -> list[tuple[str, str]]:
    """Ids and counters, for whoever looks into the machine."""
    log = value["log"]
    return [
        ("machine", value["machine"]),
        ("fleet id", value["fleet"]),
        ("incarnation", value["incarnation"]),
        ("linked", str(value["machines"]["linked"])),
        ("owns", _numbers(value["owner"])),
        ("attempts", _numbers(value["worker"])),
        ("entries", f"{log['entries']} in {_count(log['streams'], 'stream')}, {log['own']} own"),
        ("counters", _numbers(value["counters"])),
    ]


def _phase(each: Any) -> str:
    instance = clean(each["instance"])
    name = clean(each["phase"]) or "task"
    return f"{name}[{instance}]" if instance else name


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def _alarms(value: Any) -> list[str]:
    """What stands above everything else: a machine that lost its past, or runs twice."""
    doubt, lines = value.get("doubt"), []
    if doubt is not None:
        why = clean(" ".join(doubt["reasons"]), 300).rstrip(".")
        lines.append(
            paint(f"{clean(value['name'])} does not know all of its own past: {why}.", "red")
        )
        lines.append(
            f"It obeys no order and takes no task; it waits for {clean(doubt['awaits'], 200)}. "
            "`muster resume`, as the operator, goes on without."
            if doubt["waits"] and doubt["id"]
            else f"It obeys no order and takes no task; it waits for {clean(doubt['awaits'], 200)}."
            if doubt["waits"]
            else "What is lost does not come back; `muster resume` says that you know."
        )
    grave = (i for i in value["incidents"] if is_grave(i) and not (doubt and _is_own(i, value)))
    return [*lines, *(paint(_told(i, value["name"]), "red") for i in grave)]


def _told(incident: Any, here: str) -> str:
    """What is wrong, and who says so: any machine can say what it likes of another one."""
    who = "" if incident["machine"] == here else f"{clean(incident['machine'])} says: "
    return f"{who}{clean(incident['title'], 300)}"


def _is_own(incident: Any, value: Any) -> bool:
    return bool(incident["machine"] == value["name"] and incident["key"] == "set-back")


def is_grave(incident: Any) -> bool:
    """Whether it is about a machine that was set back or copied."""
    return str(incident["key"]).startswith(("set-back", "clone-"))


def _shut_out(revoked: Any) -> list[str]:
    if not revoked:
        return []
    reason = f": {clean(revoked['reason'], 100)}" if revoked["reason"] else ""
    return [
        paint(f"This machine was revoked {ago(revoked['t_ms'])}{reason}.", "red"),
        "Nothing it does counts for the fleet any more. To come back it needs a new home:",
        "`muster down`, then `muster join` with a new invitation and --home NEW-FOLDER.",
    ]


def _ownerless(value: Any) -> list[str]:
    """Said of a fleet in which no order counts, unless this machine is no part of it any more."""
    if value["revoked"] or value.get("operators", 1):
        return []
    return [
        paint("Nobody can order anything: the last operator was revoked.", "red"),
        "`muster operator add NAME --here` makes a new one where authority.seed lies, once the old",
        "operator.seed is moved away there.",
    ]


def _numbers(found: Any) -> str:
    if not isinstance(found, dict):
        return clean(found)
    return ", ".join(
        f"{name} {clean(n)}" for name, n in found.items() if n and not isinstance(n, dict | list)
    )
