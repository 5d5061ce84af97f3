"""What people read about devices."""

from typing import Any

from muster.cli.text import Files, ago, clean, paint, state, table


def device(value: Any, _files: Files) -> str:
    if "devices" in value:
        if not value["devices"]:
            return "No device orders: `muster device add MACHINE` lets one."
        return table(
            ("device", "state", "of", "may", "until"),
            (
                (
                    paint(clean(d["device"]), "bold"),
                    state(d["state"]),
                    clean(d["operator"]),
                    clean(" ".join(d["rights"]), 60),
                    # What was taken back has no end to come.
                    "" if d["state"] == "revoked" else ago(d["until_ms"]),
                )
                for d in value["devices"]
            ),
        )
    if "string" in value:
        return "\n".join(
            [
                f"On {value['device']}, run this once ({ago(value['open_ms'])} it is void):",
                "",
                f"  muster device join {value['string']}",
                "",
                f"It may then: {' '.join(value['rights'])}.",
            ]
        )
    if "key" in value:
        return "\n".join(
            [
                f"{value['device']} orders for {value['operator']} with a key of its own now.",
                f"That ends {ago(value['until_ms'])}; `muster device revoke` ends it at once.",
                f"It may: {' '.join(value['rights'])}.",
            ]
        )
    return f"{clean(value['device'])} orders nothing any more."
