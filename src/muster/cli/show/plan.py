"""What people read about a plan."""

from typing import Any

from muster.cli.show.run import run
from muster.cli.text import Files, block, clean


def ask(value: Any, _files: Files) -> str:
    if "missing" in value:
        return f"{clean(value['text'])}:\n\n{block(value['skeleton'], '')}"
    if "phases" in value or value["run"]:
        return run(value, _files)
    # Without anybody to say yes the plan is the answer, fit for `muster ask … > plan.yaml`.
    return "Nothing was run." if value.get("declined") else str(value["spec"]).rstrip("\n")
