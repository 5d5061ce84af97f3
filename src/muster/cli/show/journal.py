"""What people read about what an agent did."""

from typing import Any

from muster.cli.text import Files, block, clean, clock, paint, short


def logs(value: Any, _files: Files) -> str:
    """One entry of a journal; the kinds that agents write most are shown as what they are."""
    kind = str(value.get("kind", ""))
    head = f"{clock(value.get('t_ms'))[11:]}  {paint(kind, 'bold')}  {clean(value.get('actor'))}"
    if kind not in ("agent.tool", "agent.ask", "agent.decision"):
        known = ("t_ms", "kind", "actor", "machine", "task", "epoch")
        rest = {k: v for k, v in value.items() if k not in known}
        said = [rest[k] for k in ("text", "output", "data", "summary", "title") if k in rest]
        if said and isinstance(said[0], str) and said[0].strip():
            return f"{head}\n{block(said[0])}"
        return f"{head}  {clean(', '.join(f'{k}={v}' for k, v in rest.items()), 300)}"
    # A tool, a question about one, or the decision: what it is, and what came of it.
    what = clean(value.get("title") or value.get("tool"), 200)
    paths = ", ".join(p for p in value.get("paths") or () if p not in what)
    what += f"  ({clean(paths, 200)})" if paths else ""
    if kind == "agent.ask":
        task = short(value.get("task"))
        return f"{head}  {what}\n  answer with `muster answer {task} yes|no`"
    if kind == "agent.decision":
        because = clean(value.get("because"), 100)
        decided = f"{clean(value.get('answer'))} by {clean(value.get('by'))}"
        return f"{head}  {decided}: {what}" + (f"  [{because}]" if because else "")
    output = value.get("output")
    shown = f"\n{block(output)}" if isinstance(output, str) and output.strip() else ""
    return f"{head}  {clean(value.get('status'))}: {what}{shown}"
