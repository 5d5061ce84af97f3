"""What people read about what an agent did."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from muster.cli.text import Files, block, clean, clock, paint, short


def logs(value: Any, _files: Files) -> str:
    """One entry of a journal; the kinds that agents write most are shown as what they are."""
    kind = str(value.get("kind", ""))
    head = f"{clock(value.get('t_ms'))[11:]}  {paint(kind, 'bold')}  {clean(value.get('actor'))}"
    if kind in _OF_SANDBOX:
        return f"{head}  {_OF_SANDBOX[kind](value)}"
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
        # An older machine's has no name of its own.
        named = short(value.get("approval") or value.get("task"))
        return f"{head}  {what}\n  `muster answer {named}` shows all of it, and asks you"
    if kind == "agent.decision":
        because = clean(value.get("because"), 100)
        decided = f"{clean(value.get('answer'))} by {clean(value.get('by'))}"
        return f"{head}  {decided}: {what}" + (f"  [{because}]" if because else "")
    output = value.get("output")
    shown = f"\n{block(output)}" if isinstance(output, str) and output.strip() else ""
    return f"{head}  {clean(value.get('status'))}: {what}{shown}"


def _sandbox(value: Mapping[str, Any]) -> str:
    how = "in a sandbox" if value.get("enclosed") else "without a sandbox"
    return f"{how}: {clean(value.get('why'), 200)}"


def _network(value: Mapping[str, Any]) -> str:
    """What was reached, or was to be."""
    host = clean(value.get("host") or "", 253)
    where = f"{host}:{value.get('port')}" if host else "nothing that has a name"
    often = f" ({value['times']} times)" if value.get("times", 1) != 1 else ""
    why = clean(value.get("why"), 200)
    if not value.get("allowed"):
        return f"refused: {where}{often}" + (f"  {why}" if why else "")
    bytes_ = f"{value.get('sent', 0)} bytes out, {value.get('received', 0)} in"
    return f"reached: {where}{often}  {bytes_}" + (f"  {why}" if why else "")


def _call(value: Mapping[str, Any]) -> str:
    """A call of the agent's model."""
    used: Any = value.get("usage") or {}
    model = clean(value.get("answered") or value.get("model") or value.get("path"), 200)
    often = f" ({value['times']} times)" if value.get("times", 1) != 1 else ""
    tokens = sum(n for name, n in used.items() if name != "output" and isinstance(n, int))
    said = f"{clean(value.get('ending'))}: {model}{often}"
    if tokens or used.get("output"):
        said += f"  {tokens} tokens in, {used.get('output', 0)} out"
    why = clean(value.get("why"), 200)
    return said + (f"  {why}" if why else "")


def _budget(value: Mapping[str, Any]) -> str:
    """That most of what it may use up is used."""
    tokens, most = value.get("tokens", 0), value.get("tokens_max")
    said = f"{value.get('used')} % of what it may use up is used: {tokens} tokens"
    return said + (f" of {most}" if most else "")


def _health(value: Mapping[str, Any]) -> str:
    """That an agent was stuck, and what was done about it."""
    return f"{clean(value.get('did'))}: {clean(value.get('why'), 300)}"


# What surrounds an attempt, and who watches it, as a line each.
_OF_SANDBOX: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "agent.sandbox": _sandbox,
    "agent.network": _network,
    "agent.call": _call,
    "agent.health": _health,
    "agent.budget": _budget,
}
