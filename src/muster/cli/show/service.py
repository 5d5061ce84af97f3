"""What people read about the service that keeps the daemon up."""

from typing import Any, Final

from muster.cli.text import Files, clean, pairs, state

_DID: Final = {
    "installed": "The daemon runs now, and after each reboot.",
    "restarted": "The daemon runs anew, as the service says it now.",
    "nothing": "It is installed and runs already: nothing was to do.",
    "removed": "The service is removed and its daemon has stopped; the home is as it was. "
    "`muster up --detach` starts it by hand.",
}


def service(value: Any, _files: Files) -> str:
    if not value["installed"] and value["did"] in ("", "nothing"):
        return "No service is installed for this home; `muster service install` installs one."
    lines = [_DID[value["did"]]] if value["did"] else []
    if value["took_over"]:
        lines.append(f"The daemon that ran by hand (process {value['took_over']}) gave way to it.")
    if value["did"] == "removed":
        return "\n".join(lines)
    starts = "after each reboot" if value["enabled"] else "not by itself"
    runs = clean(value.get("fails", "")) or state(value["active"])
    runs += f", process {value['pid']}" if value["pid"] else ""
    lines.append(
        pairs(
            [
                ("service", f"{clean(value['name'])} ({value['scope']})"),
                ("home", clean(value["home"])),
                ("runs", runs),
                ("since", clean(value["since"])),
                ("starts", starts),
                ("file", clean(value["file"])),
                ("log", clean(value["log"])),
            ]
        )
    )
    lines += [f"To do, {clean(each)}" for each in value["to_do"]]
    return "\n".join(lines)
