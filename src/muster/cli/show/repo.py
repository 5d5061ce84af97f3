"""What people read about repositories."""

from typing import Any

from muster.cli.text import Files, clean, short, table


def repo(value: Any, _files: Files) -> str:
    if isinstance(value, dict):
        branch = f" of {clean(value['branch'])}" if value.get("branch") else ""
        text = f"{clean(value['name'])} is in the fleet now, at {short(value['head'])}{branch}"
        if out := value.get("left_out"):
            names = ", ".join(clean(each) for each in out)
            text += f"\nleft out, since runs need branches of these names: {names}"
        return text
    rows = ((clean(each["name"]), short(each["head"]), _keepers(each)) for each in value)
    return table(
        ("name", "head", "kept on"), rows, "None yet; `muster repo add NAME FOLDER` adds one."
    )


def _keepers(each: Any) -> str:
    """Who keeps a repository; of one that is lost, who did, and how it comes back."""
    if each["machines"] or not each.get("lost"):
        return clean(", ".join(each["machines"]))
    gone, name = clean(", ".join(each["lost"]), 60), clean(each["name"])
    return f"nobody: {gone} was revoked; `muster repo add {name} CLONE` brings it back"
