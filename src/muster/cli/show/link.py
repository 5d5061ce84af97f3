"""What people read about a machine that moved."""

from typing import Any

from muster.cli.text import Files, clean


def reach(value: Any, _files: Files) -> str:
    name, address = clean(value["machine"]), clean(value["address"])
    if value["linked"]:
        return f"{name} is at {address}, and there is a link to it now."
    return f"{name} is looked for at {address} from now on."
