"""What people read about machines and who may what."""

from collections.abc import Mapping
from typing import Any

from muster.cli.text import ago, clean, paint, pairs, short, span, state, table

Files = Mapping[str, str]


def init(value: Any, _files: Files) -> str:
    return "\n".join(
        [
            f"{value['name']} is now a fleet of one machine, with {value['operator']} as operator.",
            pairs(
                [
                    ("home", value["home"]),
                    ("fleet", value["fleet"]),
                    ("listens", value["listen"]),
                    ("reached at", value["address"]),
                ]
            ),
            "",
            *_heard_by(value["listen"]),
            "Keep authority.seed and operator.seed of this home safe: a copy offline, mode 0600.",
            "Next: `muster up --detach`, then `muster invite NAME` for each further machine.",
        ]
    )


def _heard_by(listen: str) -> list[str]:
    """Who can knock. What does not prove to be of the fleet is heard for an invitation only."""
    if not listen.startswith(("0.0.0.0:", "[::]:", ":")):
        return []
    return [
        "Its port can be reached from every network of this computer; machines of the fleet and",
        "invited ones are answered, nobody else. `listen` in config.toml narrows that to one",
        "address: 127.0.0.1:7447 is this computer alone.",
        "",
    ]


def join(value: Any, _files: Files) -> str:
    return "\n".join(
        [
            f"{value['name']} belongs to the fleet of {value['hub']} now ({_roles(value)}).",
            pairs([("home", value["home"]), ("fleet", value["fleet"])]),
            "",
            "Next: `muster up --detach`, then `muster status`.",
        ]
    )


def _roles(value: Any) -> str:
    return ", ".join(value["roles"])


def invite(value: Any, _files: Files) -> str:
    lines = [
        f"On {value['name']}, run this once ({ago(value['until_ms'])} it is void):",
        "",
        f"  muster join {value['invitation']}",
    ]
    if value.get("became_hub"):
        lines += ["", f"{value['became_hub']} is a hub from now on."]
    if value.get("also_operator"):
        both = "where both could be meant, --machine or --operator says which"
        lines += ["", f"An operator is called {value['name']}, too: {both}."]
    return "\n".join(lines)


def role(value: Any, _files: Files) -> str:
    lines = [f"{clean(value['name'])} is {', '.join(value['roles'])} from now on."]
    if not value["fresh"]:
        lines = [f"{clean(value['name'])} is {', '.join(value['roles'])} already."]
    if not value["hub_left"]:
        lines.append("No hub is left: nobody can be invited, and runs begin where they are typed.")
    return "\n".join(lines)


def revoke(value: Any, _files: Files) -> str:
    who = f"{value.get('sort', 'machine')} {clean(value['revoked'])}"
    lines = [f"{who} is shut out, for good (key {short(value['key'])}…)."]
    if dropped := value.get("streams_dropped"):
        lines.append(
            f"It wrote {value['streams']} streams, more than a revocation names: {dropped} of "
            "them, those known last, count for nothing."
        )
    if not value.get("hub_left", True):
        lines.append("No hub is left: `muster role NAME hub` makes one.")
    return "\n".join(lines)


def grant(value: Any, _files: Files) -> str:
    return f"Written down as entry {short(value['entry'])}…."


def grants(value: Any, _files: Files) -> str:
    if "verbs" in value:
        rows = ((v["verb"], v["object"] or "-", v["to"]) for v in value["verbs"])
        return table(("verb", "object", "to a"), rows)
    if not value["grants"]:
        return "No grant stands: only operators and devices order (`muster operator list`)."
    return table(
        ("to", "verb", "object", "by", "until", "id", ""),
        (
            (
                clean(g["to"] if g["sort"] != "key" else short(g["to"])),
                clean(g["verb"]),
                clean(g["object"]),
                clean(g["by"]),
                ago(g["until_ms"]),
                short(g["id"]),
                clean(f"without effect: {g['no_effect']}") if g["no_effect"] else "",
            )
            for g in value["grants"]
        ),
    )


def operator(value: Any, _files: Files) -> str:
    if "operators" in value:
        return table(
            ("name", "state", "since", "key"),
            (
                (paint(clean(o["name"]), "bold"), state(o["state"]), ago(o["since_ms"]), o["key"])
                for o in value["operators"]
            ),
        )
    if "file" in value:
        return f"{value['key']}"
    if "revoked" in value:
        return revoke(value, {})
    return f"{clean(value['operator'])} is an operator of the fleet (key {short(value['key'])}…)."


def device(value: Any, _files: Files) -> str:
    if "devices" in value:
        if not value["devices"]:
            return "No device orders: `muster device add MACHINE` lets one."
        return table(
            ("device", "state", "of", "may", "until"),
            (
                (
                    paint(clean(d["device"]), "bold"),
                    state(d["state"]),
                    clean(d["operator"]),
                    clean(" ".join(d["rights"]), 60),
                    # What was taken back has no end to come.
                    "" if d["state"] == "revoked" else ago(d["until_ms"]),
                )
                for d in value["devices"]
            ),
        )
    if "string" in value:
        return "\n".join(
            [
                f"On {value['device']}, run this once ({ago(value['open_ms'])} it is void):",
                "",
                f"  muster device join {value['string']}",
                "",
                f"It may then: {' '.join(value['rights'])}.",
            ]
        )
    if "key" in value:
        return "\n".join(
            [
                f"{value['device']} orders for {value['operator']} with a key of its own now.",
                f"That ends {ago(value['until_ms'])}; `muster device revoke` ends it at once.",
                f"It may: {' '.join(value['rights'])}.",
            ]
        )
    return f"{clean(value['device'])} orders nothing any more."


def up(value: Any, _files: Files) -> str:
    return f"{value['name']} is up (process {value['pid']}); its log is {value['log']}"


def down(value: Any, _files: Files) -> str:
    if value.get("was"):
        return "The daemon was not running."
    return "The daemon has stopped." if "pid" in value else f"{value['stopped']} is stopping."


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


def machines(value: Any, _files: Files) -> str:
    return table(
        ("name", "state", "roles", "system", "agents", "labels", "link", "heard", "id"),
        (_machine(each) for each in value),
    )


def _machine(each: Any) -> tuple[Any, ...]:
    facts = each["facts"] or {}
    system = " ".join(str(facts[k]) for k in ("os", "arch") if facts.get(k))
    heard = each.get("heard_ms_ago")
    agents = facts.get("agents") or {}
    return (
        paint(clean(each["name"]), "bold"),
        state(each["state"]),
        ", ".join(each["roles"]),
        system,
        ", ".join(sorted(agents)),
        ", ".join(facts.get("labels") or ()),
        f"through {clean(each['through'])}" if each.get("through") else each.get("channel", ""),
        f"{span(heard)} ago" if heard is not None else "never" if each["state"] == "away" else "",
        short(each["machine"]),
    )


def reach(value: Any, _files: Files) -> str:
    name, address = clean(value["machine"]), clean(value["address"])
    if value["linked"]:
        return f"{name} is at {address}, and there is a link to it now."
    return f"{name} is looked for at {address} from now on."


def doctor(value: Any, _files: Files) -> str:
    colours = {"ok": "green", "note": "yellow", "wrong": "red"}
    lines = []
    for each in value["checks"]:
        mark = paint(f"{each['state']:<5}", colours[each["state"]])
        lines.append(f"{mark}  {each['name']}: {clean(each['text'])}")
        if each["mend"]:
            lines.append(f"       {clean(each['mend'])}")
    wrong = sum(each["state"] == "wrong" for each in value["checks"])
    lines += ["", f"{wrong} to mend." if wrong else "Nothing is wrong."]
    return "\n".join(lines)
