"""What people read of a revocation."""

from typing import Any

from muster.cli.text import Files, clean, short


def revoke(value: Any, _files: Files) -> str:
    who = f"{value.get('sort', 'machine')} {clean(value['revoked'])}"
    lines = [f"{who} is shut out, for good (key {short(value['key'])}…)."]
    if dropped := value.get("streams_dropped"):
        lines.append(
            f"It wrote {value['streams']} streams, more than a revocation names: {dropped} of "
            "them, those known last, count for nothing."
        )
    if not value.get("hub_left", True):
        lines.append("No hub is left: `muster role NAME hub` makes one.")
    return "\n".join(lines)
