"""What people read about a landing."""

from typing import Any

from muster.cli.text import Files, block, clean, paint, short


def land(value: Any, _files: Files) -> str:
    branch, where, outcome = clean(value["branch"]), clean(value["where"]), value["outcome"]
    what = f"{clean(', '.join(value['phases']))} of {clean(value['name'])}"
    commits = "1 commit" if value["commits"] == 1 else f"{value['commits']} commits"
    made = f"{commits}, {clean(value['changed'])}"
    if outcome == "conflict":
        return "\n".join([f"{what} was not landed on {branch} of {where}: it conflicts there.",
                          *_conflict(value)])  # fmt: skip
    if outcome == "check-failed":
        head = f"{what} was not landed on {branch}: this failed on the merged files:"
        lines = [head, f"  {clean(value['check'], 200)}", block(value["output"], "    ")]
        return "\n".join([*lines, "Nothing was changed; --no-check leaves the spec's checks out."])
    lines = {
        "landed": [f"landed {what} on {branch} of {where}: {short(value['commit'])} ({made})"],
        "already": [f"{what} is on {branch} of {where} already, by {short(value['commit'])}"],
        "tried": [f"{what} would land on {branch} of {where} ({made}); nothing was moved"],
        "requested": [f"asked to land {what} on {branch} ({made}):", clean(value["request"])],
    }[outcome]
    return "\n".join([*lines, *([clean(value["next"])] if value["next"] else [])])


def _conflict(value: Any) -> list[str]:
    """Every file with both sides, and what to do."""
    lines = [clean(value["output"])] if value["output"] else []
    for each in value["files"]:
        lines.append(f"  {paint(clean(each['path']), 'bold')}")
        lines += [f"    there  {clean(side, 100)}" for side in each["there"]]
        lines += [f"    run    {clean(side, 100)}" for side in each["result"]]
    return [*lines, f"Nothing was changed. {clean(value['next'])}."]
