"""What people read about this machine."""

from typing import Any

from muster.cli.show.task import phase
from muster.cli.text import Files, ago, clean, paint, pairs, short, state


def status(value: Any, files: Files) -> str:
    """What a person acts on; the rest with --verbose."""
    machines, unread, exposed = value["machines"], value["unread"], value["exposed"]
    settled = "" if value["settled"] else "asking the others where its own log ended"
    away = f", away: {clean(', '.join(machines['away']), 60)}" if machines["away"] else ""
    others = [each for each in machines.get("rest") or () if each != value["name"]]
    away += f", no work for: {clean(', '.join(others), 60)}" if others else ""
    through = ", ".join(f"{name} by {hub}" for name, hub in (machines.get("through") or {}).items())
    process = value.get("process") or {}
    works = [f"{phase(each) or 'task'} ({short(each['task'])})" for each in value["works"][:8]]
    parts = []
    if "verbose" in files:
        log, streams = value["log"], _count(value["log"]["streams"], "stream")
        # Ids and counters, for whoever looks into the machine.
        parts = [
            ("machine", short(value["machine"])),
            ("fleet id", short(value["fleet"])),
            ("incarnation", value["incarnation"]),
            ("linked", str(machines["linked"])),
            ("owns", _numbers(value["owner"])),
            ("attempts", _numbers(value["worker"])),
            ("entries", f"{log['entries']} in {streams}, {log['own']} own"),
            ("counters", _numbers(value["counters"])),
        ]
    lines = [
        *_alarms(value),
        paint(value["name"], "bold"),
        *_powerless(value),
        *_resting(value),
        pairs(
            [
                ("starting", settled),
                ("fleet", f"{_count(machines['known'], 'machine')}{away}"),
                ("indirect", clean(through, 100)),
                ("runs", f"{value['runs']} open" if value["runs"] else ""),
                ("works on", ", ".join(works) or "nothing"),
                ("inbox", f"{unread} unread (`muster inbox`)" if unread else ""),
                ("log", f"{_count(exposed, 'own entry', 'own entries')} that no other machine "
                 "has vouched for yet" if exposed else "another machine vouched for every entry"),
                ("daemon", f"process {process['pid']}, up {ago(process['up_since_ms'])}"
                 .removesuffix(" ago") if process else ""),
                ("its log", clean(process.get("daemon_log", ""), 200)),
                *parts,
            ]
        ),
    ]  # fmt: skip
    if value["incidents"]:
        lines += ["", paint("Needs a person (`muster incidents`):", "bold")]
    for each in value["incidents"]:
        other = each.get("machine") not in (None, value["name"])
        who = f"{clean(each['machine'])}: " if other else ""
        lines.append(f"  {state(each['severity'])}  {who}{clean(each['title'], 100)}")
    return "\n".join(lines)


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
            "`muster vouch`, as the operator, goes on without."
            if doubt["waits"] and doubt["id"]
            else f"It obeys no order and takes no task; it waits for {clean(doubt['awaits'], 200)}."
            if doubt["waits"]
            else "What is lost does not come back; `muster vouch` says that you know."
        )
    for each in value["incidents"]:
        own, key = each["machine"] == value["name"], str(each["key"])
        if not key.startswith(("set-back", "clone-")) or (doubt and own and key == "set-back"):
            continue
        # Any machine can say what it likes of another one.
        who = "" if own else f"{clean(each['machine'])} says: "
        lines.append(paint(f"{who}{clean(each['title'], 300)}", "red"))
    return lines


def _resting(value: Any) -> list[str]:
    """Said where this machine takes no work for now."""
    rest = value.get("rest")
    said = f"It {clean(rest['how'], 300)}; `muster resume` ends that." if rest else ""
    return [paint(said, "yellow")] if said else []


def _powerless(value: Any) -> list[str]:
    """Said where nothing that this machine does counts, or nobody's order does."""
    if revoked := value["revoked"]:
        reason = f": {clean(revoked['reason'], 100)}" if revoked["reason"] else ""
        return [
            paint(f"This machine was revoked {ago(revoked['t_ms'])}{reason}.", "red"),
            "Nothing it does counts for the fleet any more. To come back it needs a new home:",
            "`muster machine leave` sets this one aside, then `muster join` with a new invitation.",
        ]
    if value.get("operators", 1):
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
