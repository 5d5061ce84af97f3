"""What people read about repositories."""

from typing import Any, Final

from muster.cli.table import table
from muster.cli.text import Files, ago, clean, short
from muster.node.verb import Column

_LIST: Final = (
    Column("name"), Column("branch", "default", rank=2), Column("head", form="id", rank=3),
    Column("machines", "kept on", rank=1, least=12), Column("synced", least=12),
    Column("origin", rank=4, least=20),
)  # fmt: skip

# What an update does to a branch; of what it leaves alone the answer says why.
_MOVES: Final = ("created", "moved", "rewritten", "removed")


def repo(value: Any, _files: Files) -> str:
    if isinstance(value, dict) and value.get("removed"):
        return f"{clean(value['name'])} is no repository of the fleet any more"
    if isinstance(value, dict) and "default" in value:
        return f"`muster ask` is about {clean(value['default'])} here, where no --repo is given"
    if isinstance(value, dict) and "pruned" in value:
        word = "would go" if value["dry_run"] else "went"
        lines = [clean(each) for each in value["pruned"]]
        ended = f"that ended more than {value['older']} ago" if value.get("older") else "that ended"
        attempts = f"{value['attempts']} attempts of runs {ended}"
        count = f"{len(lines)} branches and {attempts} {word}"
        return "\n".join([*lines, count])
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
    if value and "changes" in value[0]:
        return "\n".join(_synced(each) for each in value)
    rows = []
    for each in value:
        name, kept = clean(each["name"]), clean(", ".join(each["machines"]))
        if not each["machines"] and each.get("lost"):
            gone = clean(", ".join(each["lost"]), 60)
            kept = f"nobody: {gone} was revoked; `muster repo add {name} CLONE` brings it back"
        rows.append(
            (name, clean(each.get("branch", "")), short(each["head"]), kept, _follows(each),
             clean(each.get("origin", ""), 200))
        )  # fmt: skip
    return table(_LIST, rows, "None yet; `muster repo add NAME FOLDER` adds one.")


def _follows(row: Any) -> str:
    """When a repository was as its origin last, and what keeps it from being so."""
    if not row.get("origin"):
        return ""
    if not row.get("follows"):
        return "not followed"
    unlike = len(row.get("unlike", ()))
    more = ", origin away" if row.get("error") else ""
    more += f", {unlike} branch{'es' * (unlike > 1)} differ{'s' * (unlike == 1)}" if unlike else ""
    return ago(row["synced_ms"]) + more


def _synced(row: Any) -> str:
    name, origin = clean(row["name"]), clean(row["origin"], 200)
    if row["error"]:
        return f"{name} was not brought up to date: {clean(row['error'], 500)}"
    if not row["follows"]:
        return f"{name} follows nothing"
    lines = [f"{name} is as {origin} has it"]
    for each in row["changes"]:
        branch, what = clean(each["branch"]), clean(each["what"])
        if what == "default":
            lines.append(f"  {branch} is the default branch now, in place of {clean(each['old'])}")
        elif what in _MOVES:
            old, new = short(each["old"]) or "-", short(each["new"]) or "-"
            lines.append(f"  {branch} {what}  {old} -> {new}")
    if row["unlike"]:
        lines[0] = f"{name} has what {origin} has, but for what differs:"
    return "\n".join([*lines, *(f"  {clean(each, 200)}" for each in row["unlike"])])
