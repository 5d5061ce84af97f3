"""What people read about operators."""

from typing import Any

from muster.cli.show.revoke import revoke
from muster.cli.text import Files, ago, clean, paint, short, state, table


def operator(value: Any, _files: Files) -> str:
    if "operators" in value:
        return table(
            ("name", "state", "since", "key"),
            (
                (paint(clean(o["name"]), "bold"), state(o["state"]), ago(o["since_ms"]), o["key"])
                for o in value["operators"]
            ),
        )
    if "file" in value:
        return f"{value['key']}"
    if "revoked" in value:
        return revoke(value, {})
    return f"{clean(value['operator'])} is an operator of the fleet (key {short(value['key'])}…)."
