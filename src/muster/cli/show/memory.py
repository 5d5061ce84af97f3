"""What people read about what is known."""

from typing import Any

from muster.cli.text import Files, ago, block, clean, paint, short, state


def memory(value: Any, _files: Files) -> str:
    return "\n\n".join(_version(each) for each in value) or "Nothing is known under that key there."


def remember(value: Any, _files: Files) -> str:
    """What was written down, and what else is known like it."""
    head = f"{short(value['version'])}  {clean(value['key'])}: {state(value['state'])}"
    like = [
        f"  like {paint(clean(each['key']), 'bold')} ({state(each['state'])}, "
        f"{short(each['version'])}): {clean(each['text'])}"
        for each in value.get("similar") or ()
    ]
    return "\n".join([head, *like])


def _version(each: Any) -> str:
    """A version whole, and what is known of who wrote it."""
    trust, claims = clean(each["trust"]), each.get("claims")
    if claims:
        # Its entry claims to be somebody else, and nothing proves it.
        trust += f", claims to be {clean(claims)}"
    tags, scope = ", ".join(map(clean, each["tags"])), clean(each["scope"])
    head = [
        paint(clean(each["key"]), "bold"),
        state(each["state"]),
        clean(each["from"]),
        ago(each["t_ms"]),
        short(each["version"]),
        f"[{trust}]",
        scope if scope != "fleet" else "",
        tags,
    ]
    lines = ["  ".join(part for part in head if part), block(each["text"])]
    shown = [
        f"{clean(who['actor'])} {ago(who['t_ms'])}"
        + (f" (task {short(who['task'])})" if who["task"] else "")
        for who in each.get("shown_to") or ()
    ]
    lines += [paint(f"    shown here to {', '.join(shown)}", "dim")] if shown else []
    return "\n".join(lines)
