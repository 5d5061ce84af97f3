"""What people read about what was received, and how far it came."""

from typing import Any, Final

from muster.cli.table import table
from muster.cli.text import Files, ago, block, clean, now_ms, paint, short, span, state
from muster.node.verb import Column

_SENT: Final = (
    Column("message", form="id"), Column("sent", form="ago", rank=2), Column("to"),
    Column("state", form="state"), Column("proof", form="id", rank=3),
    Column("text", rank=1, least=16, width=60),
)  # fmt: skip


def inbox(value: Any, _files: Files) -> str:
    return "\n\n".join(said(each) for each in value) or "No unread messages."


def said(each: Any) -> str:
    """A message, and what is known of who said it."""
    marks = [word for word in ("read", "acted") if each.get(word)]
    claims, trust = each.get("claims"), clean(each.get("trust") or "")
    if claims:
        # Its entry claims to be somebody else, and nothing proves it.
        trust += f", claims to be {clean(claims)}"
    thread = each.get("thread")
    session = f"#{clean(each['session'])}" if each.get("session") else ""
    head = [
        paint(clean(each["from"]) + session, "bold"),
        f"on {clean(each['machine'])}",
        ago(each["t_ms"]),
        short(each["message"]),
        f"in {short(thread)}" if thread not in ("", None, each["message"]) else "",
        f"for #{clean(each['for_session'])}" if each.get("for_session") else "",
        f"[{trust}]" if trust else "",
        ", ".join(marks),
        paint("high", "bold") if each.get("priority") == "high" else "",
        _until(each.get("expires_ms")),
    ]
    return "  ".join(part for part in head if part) + "\n" + block(each["text"])


def _until(expires_ms: int | None) -> str:
    if not expires_ms:
        return ""
    left_ms = expires_ms - now_ms()
    return f"expires in {span(left_ms)}" if left_ms > 0 else f"expired {span(-left_ms)} ago"


def sent(value: Any, _files: Files) -> str:
    rows = []
    for each in value:
        text = clean(each["text"])
        for to in each["to"] or [{"machine": "-", "agent": "", "state": "", "proof": ""}]:
            whom = f"{to['agent']}@{to['machine']}" if to["agent"] else to["machine"]
            proof = short(to["proof"]) if to["proof"] else ""
            rows.append(
                (short(each["message"]), ago(each["t_ms"]), whom, state(to["state"]), proof, text)
            )
    return table(_SENT, rows, "Nothing was sent.")
