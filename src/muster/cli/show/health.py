"""What people read about whether a machine is well."""

from typing import Any

from muster.cli.text import Files, clean, paint, short


def health(value: Any, _files: Files) -> str:
    """A line where it is well, and else a line for each reason."""
    name, tasks = clean(value["machine"]), value["tasks"]
    how = paint("well", "green") if value["ok"] else paint("not well", "red")
    rest = f", {clean(value['paused'], 300)}" if value["paused"] else ""
    lines = [f"{name} is {how}{rest}: {tasks['running']} running, {tasks['queued']} queued"]
    lines += [f"  {clean(each, 300)}" for each in value["reasons"]]
    for each in value["agents"]:
        quiet = f", quiet for {each['quiet_s']} s" if each["quiet_s"] >= 60 else ""
        lines.append(f"  {clean(each['name'])} {each['state']} on {short(each['task'])}{quiet}")
    return "\n".join(lines)
