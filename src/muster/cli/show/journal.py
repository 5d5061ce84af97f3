"""What people read about what an agent did."""

from typing import Any

from muster.cli.text import Files, block, clean, clock, paint, short


def logs(value: Any, _files: Files) -> str:
    """One entry of a journal; the kinds that agents write most are shown as what they are."""
    kind = str(value.get("kind", ""))
    known = ("t_ms", "kind", "actor", "machine", "task", "epoch")
    rest = {k: v for k, v in value.items() if k not in known}
    if kind in ("agent.tool", "agent.ask", "agent.decision"):
        return _tool(kind, value)
    said = [rest[k] for k in ("text", "output", "data", "summary", "title") if k in rest]
    text = said[0] if said else None
    head = f"{clock(value.get('t_ms'))[11:]}  {paint(kind, 'bold')}  {clean(value.get('actor'))}"
    if isinstance(text, str) and text.strip():
        return f"{head}\n{block(text)}"
    return f"{head}  {clean(', '.join(f'{k}={v}' for k, v in rest.items()), 300)}"


def _tool(kind: str, value: Any) -> str:
    """A tool, a question about one, or the decision: what it is, and what came of it."""
    head = f"{clock(value.get('t_ms'))[11:]}  {paint(kind, 'bold')}  {clean(value.get('actor'))}"
    what = clean(value.get("title") or value.get("tool"), 200)
    paths = ", ".join(p for p in value.get("paths") or () if p not in what)
    where = f"  ({clean(paths, 200)})" if paths else ""
    if kind == "agent.ask":
        task = short(value.get("task"))
        return f"{head}  {what}{where}\n  answer with `muster answer {task} yes|no`"
    if kind == "agent.decision":
        because = clean(value.get("because"), 100)
        said = f"{clean(value.get('answer'))} by {clean(value.get('by'))}"
        return f"{head}  {said}: {what}{where}" + (f"  [{because}]" if because else "")
    output = value.get("output")
    shown = f"\n{block(output)}" if isinstance(output, str) and output.strip() else ""
    return f"{head}  {clean(value.get('status'))}: {what}{where}{shown}"
