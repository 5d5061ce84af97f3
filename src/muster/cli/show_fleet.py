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
        "It answers on every network of this computer, and only machines of the fleet and",
        "invited ones; `listen` in config.toml (or --listen) narrows that to one address.",
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
    return "\n".join(
        [
            f"On {value['name']}, run this once ({ago(value['until_ms'])} it is void):",
            "",
            f"  muster join {value['invitation']}",
        ]
    )


def revoke(value: Any, _files: Files) -> str:
    return f"{value['revoked']} is shut out, for good (key {short(value['key'])}…)."


def grant(value: Any, _files: Files) -> str:
    return f"Written down as entry {short(value['entry'])}…."


def up(value: Any, _files: Files) -> str:
    return f"{value['name']} is up (process {value['pid']}); its log is {value['log']}"


def down(value: Any, _files: Files) -> str:
    if value.get("was"):
        return "The daemon was not running."
    return "The daemon has stopped." if "pid" in value else f"{value['stopped']} is stopping."


def status(value: Any, _files: Files) -> str:
    machines, log, worker = value["machines"], value["log"], value["worker"]
    settled = "" if value["settled"] else "asking the others where its own log ended"
    exposed = value["exposed"]
    lines = [
        paint(value["name"], "bold"),
        *_shut_out(value["revoked"]),
        pairs(
            [
                ("machine", f"{short(value['machine'])}… of fleet {short(value['fleet'])}…"),
                ("starting", settled),
                ("machines", f"{machines['known']} known, {machines['linked']} linked now"),
                ("runs", f"{value['runs']} open"),
                ("owns", _numbers(value["owner"])),
                ("works on", _numbers(worker)),
                ("log", f"{log['entries']} entries in {log['streams']} streams, {log['own']} own"),
                ("unwitnessed", f"{exposed} own entries that no other machine vouched for yet"
                 if exposed else "nothing"),
            ]
        ),
    ]  # fmt: skip
    if value["incidents"]:
        lines += ["", paint("Needs a person (`muster incidents`):", "bold")]
        lines += [f"  {state(i['severity'])}  {clean(i['title'], 100)}" for i in value["incidents"]]
    return "\n".join(lines)


def _shut_out(revoked: Any) -> list[str]:
    if not revoked:
        return []
    reason = f": {clean(revoked['reason'], 100)}" if revoked["reason"] else ""
    return [
        paint(f"This machine was revoked {ago(revoked['t_ms'])}{reason}.", "red"),
        "Nothing it does counts for the fleet any more. To come back it needs a new home:",
        "`muster down`, then `muster join` with a new invitation and --home NEW-FOLDER.",
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
        each.get("channel", ""),
        "" if heard is None else f"{span(heard)} ago",
        short(each["machine"]),
    )


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
