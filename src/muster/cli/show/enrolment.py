"""What people read about an invitation."""

from typing import Any

from muster.cli.text import Files, ago


def invite(value: Any, _files: Files) -> str:
    lines = [
        f"On {value['name']}, run this once ({ago(value['until_ms'])} it is void):",
        "",
        f"  muster join {value['invitation']}",
    ]
    if value.get("became_hub"):
        lines += ["", f"{value['became_hub']} is a hub from now on."]
    if value.get("also_operator"):
        both = "where both could be meant, --machine or --operator says which"
        lines += ["", f"An operator is called {value['name']}, too: {both}."]
    return "\n".join(lines)
