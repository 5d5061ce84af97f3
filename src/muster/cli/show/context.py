"""What people read about context folders."""

from typing import Any

from muster.cli.table import table
from muster.cli.text import Files, ago, clean, paint, short, state

_NONE = "No context folder is here: `muster context add PATH` makes one of a folder."


def context(value: Any, _files: Files) -> str:
    """An answer of any of its actions, by what it holds."""
    if isinstance(value, dict):
        return _one(value)
    if not value:
        return _NONE
    if "versions" in value[0]:
        return "\n\n".join(_conflict(each) for each in value)
    if "version" in value[0]:
        return _versions(value)
    return "\n\n".join(_folder(each) for each in value)


def _one(value: Any) -> str:
    if "pattern" in value:
        return f"{clean(value['folder'])} leaves out {clean(value['pattern'])}, on every machine"
    if "left" in value:
        left = clean(value["left"])
        return f"{clean(value['folder'])} is kept the same here no longer; its files stay in {left}"
    if "machine" in value:
        where = f"{clean(value['path'])} on {clean(value['machine'])}"
        return f"{clean(value['folder'])} is {where}; `muster context status` says who has it"
    if "text" in value or "b64" in value:
        return str(value.get("text", value.get("b64")))
    which = f"version {short(value['version'])}"
    return f"{clean(value['path'])} of {clean(value['folder'])} is {which} from now on, everywhere"


def _folder(each: Any) -> str:
    head = [
        paint(clean(each["folder"]), "bold"),
        state(each["state"]),
        f"{each['files']} files",
        clean(each["path"]),
        f"{each['conflicts']} in conflict" if each["conflicts"] else "",
    ]
    lines = ["  ".join(part for part in head if part)]
    lines += [f"  {clean(machine)}" for machine in each["machines"]]
    lines += [f"  {clean(each['waits'])}"] if each.get("waits") else []
    lines += [_left(path, why) for path, why in each["left"].items()]
    lines += [f"  {clean(path)} is synced, and {clean(w)}" for path, w in each["doubtful"].items()]
    return "\n".join(lines)


def _left(path: str, why: str) -> str:
    return f"  {clean(path)}: not as others have it: {clean(why)}" if path else f"  {clean(why)}"


def _conflict(each: Any) -> str:
    name = f"{each['folder']}/{each['path']}"
    return (
        f"{paint(clean(name), 'bold')}\n{_versions(each['versions'])}\n"
        f"`muster context get {clean(name)}` shows the one that is on the disks, `muster context "
        f"resolve {clean(name)} --take VERSION` makes one of them the only one"
    )


def _versions(rows: Any) -> str:
    shown = [
        (short(r["version"]), state(r["state"]), clean(r["machine"]), ago(r["t_ms"]),
         "deleted" if r["gone"] else f"{r['size']} bytes")
        for r in rows
    ]  # fmt: skip
    return table(["version", "state", "machine", "when", "what"], shown)
