"""What people read about messages."""

from typing import Any

from muster.cli.text import Files, clean, short, span


def send(value: Any, files: Files) -> str:
    # Sent before under the same key, nothing is known of it without a look.
    done = value.get("state", "written down")
    if done != "stored":
        # It was sent from where it was ordered, and is listed there.
        there = f" --on {clean(files['on'])}" if files.get("on") else ""
        done = f"{done}; `muster sent{there}` shows how far it comes"
    again = "" if value["fresh"] else " (the same key: it was sent before)"
    return f"{short(value['message'])}  {done}{again}"


reply = send


def waiting(value: Any, _files: Files) -> str:
    lines = [f"{short(value['message'])}  written down here; waiting until it is stored there:"]
    for each in value["away"]:
        heard = each.get("heard_ms_ago")
        since = f", last heard of {span(heard)} ago" if heard is not None else ""
        machine = clean(each["machine"])
        if each.get("mailboxes"):
            where = " and ".join(clean(name) for name in each["mailboxes"])
            lines.append(f"  {machine} has no link to this machine{since}; it goes by {where}")
        else:
            lines.append(f"  {machine} is away{since}; it is delivered when it is back")
    lines.append("Ctrl-C ends the waiting, not the message: `muster sent` shows how far it came.")
    return "\n".join(lines)
