"""What people read about machines and who may what."""

from collections.abc import Mapping
from typing import Any

from muster.cli.text import ago, clean, paint, short, state, table

Files = Mapping[str, str]


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
