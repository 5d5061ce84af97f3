"""What people read about what is wrong with this machine."""

from typing import Any

from muster.cli.text import Files, clean, paint


def doctor(value: Any, _files: Files) -> str:
    colours = {"ok": "green", "note": "yellow", "wrong": "red"}
    done = value.get("done", value.get("would")) or []
    word = "done" if "done" in value else "would"
    lines = [_repaired(each, word) for each in done]
    lines += [""] if done else []
    for each in value["checks"]:
        mark = paint(f"{each['state']:<5}", colours[each["state"]])
        lines.append(f"{mark}  {each['name']}: {clean(each['text'])}")
        if each["mend"]:
            lines.append(f"       {clean(each['mend'])}")
    wrong = sum(each["state"] == "wrong" for each in value["checks"])
    lines += ["", f"{wrong} to mend." if wrong else "Nothing is wrong."]
    return "\n".join(lines)


def _repaired(each: Any, word: str) -> str:
    if each["failed"]:
        return f"{paint('left', 'red')}   {clean(each['what'])}: {clean(each['failed'])}"
    return f"{paint(f'{word:<5}', 'green')}  {clean(each['what'])}"
