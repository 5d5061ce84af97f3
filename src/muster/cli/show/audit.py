"""What people read about what happened, and whether it is true."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from muster.cli.show.task import claimed
from muster.cli.table import table
from muster.cli.text import Files, clean, clock, paint, short, state
from muster.node.verb import Column

_STREAMS: Final = (
    Column("ok", " ", "state"), Column("machine"), Column("scope", least=12), Column("entries"),
    Column("exposed", rank=1), Column("incarnation", rank=2),
)  # fmt: skip


def audit(value: Any, _files: Files) -> str:
    if "explain" in value:
        return _explain(value["explain"])
    if "export" in value:
        closed = "every cause is in it" if value["closed"] else "some causes lie outside of it"
        return (
            f"{value['entries']} entries of {value['streams']} streams are in {value['export']}; "
            f"{closed}.\nAnyone can check them, without Muster, by verify/muster_verify.py of its "
            f"repository:\n  python3 muster_verify.py {value['export']}"
        )
    rows = (
        (
            paint("OK", "green") if each["ok"] else paint("WRONG", "red"),
            each["machine"],
            clean(each["scope"]),
            str(each["entries"]),
            str(each["exposed"] or ""),
            each["stream"].split("/")[1][:8],
        )
        for each in value["streams"]
    )
    lines = [table(_STREAMS, rows), ""]
    lines += [f"{paint('WRONG', 'red')} {clean(each)}" for each in value["wrong"]]
    if value["wrong"]:
        count = len(value["wrong"])
        lines.append(f"The log does not hold: {count} {'finding' if count == 1 else 'findings'}.")
        return "\n".join(lines)
    lines.append(
        f"{value['entries']} entries hold, signed by {value['machines']} "
        f"{'machine' if value['machines'] == 1 else 'machines'} of fleet {short(value['fleet'])}…."
    )
    if value["withheld"]:
        lines.append(f"{value['withheld']} of them are without their body (erased or withheld).")
    lines.append(
        f"Exposure window: {value['exposed']} entries that no other machine has vouched for yet; "
        "for these the writing machine alone is trusted."
        if value["exposed"]
        else "Exposure window: none, another machine has vouched for every entry."
    )
    return "\n".join(lines)


def _explain(value: Any) -> str:
    """The chain of causes, from the order to the result."""
    task, names = value["task"], value.get("names") or {}
    numbers = {each["id"]: at for at, each in enumerate(value["entries"], 1)}
    lines = [f"task {short(task['task'])}  {state(task['state'])}  {clean(task['summary'])}", ""]
    lines += claimed(value)
    for each in value["entries"]:
        because = ", ".join(str(numbers[c]) if c in numbers else short(c) for c in each["causes"])
        receipts = ", ".join(each["held_by"])
        lines.append(
            f"{numbers[each['id']]:>3}  {clock(each['t_ms'])}  {paint(clean(each['kind']), 'bold')}"
            f"  by {clean(each['actor'])} on {clean(each['machine'])}"
            + (f" (claims to be {clean(each['claims'])})" if each.get("claims") else "")
            + (f"  because of {because}" if because else "")
        )
        body = each["body"] if isinstance(each["body"], dict) else None
        lines += ["       (body erased or withheld)"] if body is None else []
        for name, said in (body or {}).items():
            if name in ("statement", "record"):
                lines.append(f"       {name}: {_signed(said, names)}")
            elif said not in ("", [], {}, None):
                text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
                # Cut before anything is searched in it: a member may have written much.
                lines.append(f"       {name}: {clean(_named(text[:2_000], names), 160)}")
        lines.append(
            f"       entry {short(each['id'])}… seq {each['seq']}"
            + (f", receipt of {receipts}" if receipts else ", no receipt yet")
        )
    return "\n".join([*lines, *_knew(value.get("knew") or ())])


def _knew(shown: Sequence[Any]) -> Iterator[str]:
    """What its agents were told on this machine, and what became of that since."""
    if shown:
        yield f"\n{paint('What was known when it was done', 'bold')}, as this machine told it:"
    for each in shown:
        what = {"start": "was told", "recall": "found", "get": "looked up"}.get(each["why"], "read")
        words = f" for {clean(each['query'], 60)!r}" if each["query"] else ""
        exact = "" if each["why"] != "start" or each["proven"] else "  (in other words, by now)"
        yield f"     {clock(each['t_ms'])}  {clean(each['actor'])} {what}{words}{exact}"
        for line in each["lines"]:
            now = f"  {paint(clean(line['now'], 160), 'yellow')}" if line["now"] else ""
            yield f"       [{line['name']}] {clean(line['text'], 160)}{now}"
        if each["left_out"]:
            yield f"       {each['left_out']} more were left out for room"


# A key, the id of an entry, a hash: sixty-four digits that nobody reads.
_ID: Final = re.compile(r"\b[0-9a-f]{64}\b")


def _named(text: str, names: Mapping[str, str]) -> str:
    """With each id as people call what it is of, or its first digits; `--json` has them whole."""
    known = {id: f"{name} ({id[:12]}…)" for id, name in names.items() if name}
    return _ID.sub(lambda found: known.get(found[0], f"{found[0][:12]}…"), text)


def _signed(value: Any, names: Mapping[str, str]) -> str:
    """What a signed document inside a body says, without its signature."""
    text = str(value)
    try:
        document = text if text.startswith("muster/") else bytes.fromhex(text).decode()
        kind, contents, _ = document.split("\n", 2)
        found = json.loads(contents)
    except (ValueError, RecursionError):
        return clean(text, 60)
    if not isinstance(found, dict):
        return clean(text, 60)
    shown = ("verb", "object", "operator", "target", "name", "machine")
    said = ", ".join(
        f"{k} {clean(_named(str(found[k])[:200], names), 60)}" for k in shown if k in found
    )
    return f"signed {kind}: {said}"
