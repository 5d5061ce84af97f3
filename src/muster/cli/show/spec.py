"""What people read about what is wrong with a spec."""

import json
from typing import Any

from muster.cli.text import Files, clean, paint


def check(value: Any, files: Files) -> str:
    name = files.get("spec", "spec")
    lines = [problem(each, name) for each in value["problems"]]
    if not any(not each["warning"] for each in value["problems"]):
        phases = value["phases"]
        count = "1 phase" if phases == 1 else f"{phases} phases"
        ready = "ready to run" if value["compared"] else "nothing is wrong with the file"
        lines.append(f"{value['name']}: {count}, {ready}")
    return "\n".join(lines)


def problem(each: Any, name: str) -> str:
    """A problem as compilers write them, so that editors find the place."""
    kind = paint("warning", "yellow") if each["warning"] else paint("error", "red")
    place = f"{name}:{each['line']}:{each['column']}: " if each["line"] else ""
    return f"{place}{kind}: {clean(each['text'])}"


def schema(value: Any, _files: Files) -> str:
    """A file for a program, with or without `--json`."""
    return json.dumps(value, ensure_ascii=False, indent=2)
