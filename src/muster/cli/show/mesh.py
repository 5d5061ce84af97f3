"""What people read about the mesh."""

from typing import Any, Final

from muster.cli.text import Files, clean, pairs, state

_DID: Final = {
    "made": "This machine is in the fleet's own mesh now.",
    "updated": "The mesh's interface follows the fleet as it is now.",
    "removed": "The mesh's interface is gone, and nothing else was changed.",
}


def mesh(value: Any, _files: Files) -> str:
    lines = [_DID[value["did"]]] if value["did"] in _DID else []
    others = ", ".join(f"{each['address']} ({each['interface']})" for each in value["others"])
    if others and not value["up"]:
        lines.append(f"This computer is in a mesh already, which is used: {clean(others)}.")
        if value["did"] == "nothing":
            lines.append("`muster mesh up --own` makes one of the fleet's own beside it.")
    elif not value["up"] and value["did"] != "removed":
        lines.append("The fleet has no mesh of its own here; `muster mesh up` makes one.")
    if value["up"]:
        follows = "the daemon" if value["follows"] else "`muster mesh up`, said again"
        rows = [
            ("interface", clean(value["interface"])),
            ("address", clean(value["address"])),
            ("takes packets at", clean(value["endpoint"]) or f"port {value['port']}, told nobody"),
            ("follows the fleet by", follows),
        ]
        lines.append(pairs([*rows, *([("other meshes", clean(others))] if others else [])]))
    for each in value["peers"]:
        heard = each["heard_s_ago"]
        words = [f"{clean(each['name'])}: {state(each['state'])}", clean(each["address"])]
        words += [f"at {clean(each['endpoint'])}"] if each["endpoint"] else ["told no place"]
        words += [f"heard {heard} s ago"] if heard is not None else []
        lines.append(", ".join(words))
    lines += [f"{clean(each)} is a peer still, and in the fleet no more" for each in value["stale"]]
    if value["to_do"]:
        lines.append(f"To do: {clean(value['to_do'])}")
    return "\n".join(lines)
