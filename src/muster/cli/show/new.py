"""What people read about a spec that was written."""

from typing import Any

from muster.cli.text import Files, clean, paint


def new(value: Any, _files: Files) -> str:
    if not value["file"]:
        # Fit for `muster new NAME --print > FILE`.
        return str(value["spec"]).rstrip("\n")
    file = clean(value["file"], 200)
    lines = [f"{paint(file, 'bold')} is written, from the template {clean(value['template'])}"]
    for title, key in (("found", "found"), ("to do", "missing")):
        lines += [f"  {title + ':':<7}{clean(each)}" for each in value[key]]
    push = " --push BRANCH" if "\non: " in value["spec"] else ""
    return "\n".join([*lines, f"next:  muster check {file} && muster run {file}{push}"])
