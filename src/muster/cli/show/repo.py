"""What people read about repositories."""

from typing import Any

from muster.cli.text import Files, clean, short, table


def repo(value: Any, _files: Files) -> str:
    if isinstance(value, dict):
        branch = f" of {clean(value['branch'])}" if value.get("branch") else ""
        text = f"{clean(value['name'])} is in the fleet now, at {short(value['head'])}{branch}"
        if value.get("origin"):
            follows = "follows" if value.get("follows") else "does not follow"
            text += f"\nit {follows} {clean(value['origin'], 200)}"
        if out := value.get("left_out"):
            names = ", ".join(clean(each) for each in out)
            text += f"\nleft out, since runs need branches of these names: {names}"
        return text
    rows = []
    for each in value:
        name, kept = clean(each["name"]), clean(", ".join(each["machines"]))
        if not each["machines"] and each.get("lost"):
            gone = clean(", ".join(each["lost"]), 60)
            kept = f"nobody: {gone} was revoked; `muster repo add {name} CLONE` brings it back"
        rows.append((name, short(each["head"]), kept))
    return table(
        ("name", "head", "kept on"), rows, "None yet; `muster repo add NAME FOLDER` adds one."
    )
