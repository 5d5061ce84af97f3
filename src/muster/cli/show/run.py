"""What people read about runs."""

from typing import Any, Final

from muster.cli.show import listed
from muster.cli.show.task import asked, claimed, outcome, phase, round_rejected, took, word
from muster.cli.table import table
from muster.cli.text import Files, clean, now_ms, paint, seconds, short, state
from muster.node.verb import Column

_RUNS: Final = (
    Column("run", form="id"), Column("name"), Column("state", form="state"),
    Column("phases", "done"), Column("took", rank=1), Column("opened_ms", "begun", "ago", rank=2),
    Column("by", rank=3), Column("repo", rank=5), Column("owner", rank=4),
    Column("summary", least=20),
)  # fmt: skip
_PHASES: Final = (
    Column("phase"), Column("state", form="state"), Column("machine", rank=1),
    Column("took", form="span", rank=2), Column("commit", form="id", rank=3),
    Column("after", rank=4), Column("summary", least=20),
)  # fmt: skip


def runs(value: Any, _files: Files) -> str:
    if isinstance(value, dict):
        return graph(value)
    return listed(_RUNS, map(row, value), "There is no run yet; `muster run SPEC` begins one.")


def row(run: Any) -> dict[str, Any]:
    """A run as a line of the list."""
    end_ms = now_ms() if run["state"] == "open" else run["changed_ms"]
    return {
        **run,
        "by": run.get("by", ""),
        "phases": f"{run['done']} of {run['total']}" if "total" in run else "",
        "took": seconds(max(0, end_ms - run["opened_ms"])),
        "summary": run["summary"] or stands(run),
    }


def line(run: Any) -> str:
    """A run as one line, where there is no table."""
    shown = row(run)
    how = f"{shown['phases']} phases done" if shown["phases"] else ""
    said = [state(run["state"]), how, shown["took"], clean(shown["summary"], 80)]
    return f"{short(run['run'])}  {clean(run['name'])}: {', '.join(each for each in said if each)}"


def stands(run: Any) -> str:
    """Whose return an open run waits for, "" for nobody's."""
    owner = clean(run.get("waits_for"))
    return f"waits for {owner}, which is away" if owner else ""


def graph(run: Any) -> str:
    """A run: its phases in their order, what came of each, and of what each waits."""
    head = f"{paint(clean(run['name']), 'bold')}  {short(run['run'])}  {state(run['state'])}"
    lines = [head + (f"  {clean(run['summary'], 100)}" if run["summary"] else "")]
    lines += asked(run)
    if away := stands(run):
        owner, name = clean(run.get("waits_for")), short(run["run"])
        mend = f"`muster takeover {owner}` lets it go on here, `muster cancel {name}` ends it"
        lines += [f"It {away}; if that machine is lost, {mend}."]
    phases, progress = run.get("phases") or {}, run.get("progress") or {}
    done: dict[str, list[Any]] = {}
    for each in run.get("tasks", ()):
        done.setdefault(str(each["phase"]), []).append(each)
    slots = {(str(each["phase"]), str(each["instance"])): each for each in run.get("tasks", ())}
    rows = []
    for name in [*phases, *(n for n in done if n not in phases)]:
        waits = ", ".join(phases.get(name, {}).get("after", ()))
        found = done.get(name)
        if not found:
            now = progress.get(name, {})
            reason = clean(now.get("reason"))
            rows.append((name, state(now.get("state", "-")), "", "", "", waits, reason))
        for each in found or ():
            said = clean(each.get("waits") or kept(run, each) + outcome(each))
            follows = round_rejected((each["phase"], each["instance"]), slots, phases)
            now, said = ("rejected", f"{follows}; {said}") if follows else (word(each), said)
            commit = clean(each["commit"])[:10]
            where = (phase(each), state(now), each["machine"], took(each))
            rows.append((*where, commit, waits, said))
    lines.append(table(_PHASES, rows, ""))
    lines += claimed(run)
    if run["state"] == "done" and any(each["commit"] for each in run.get("tasks", ())):
        name = short(run["run"])
        lines += [f"`muster diff {name}` shows what it changed, `muster land {name}` lands it"]
    return "\n".join(line for line in lines if line)


def kept(run: Any, each: Any) -> str:
    """That a task is of an earlier run, which counts here."""
    of = each.get("run", run["run"])
    return f"kept from run {short(of)}: " if of != run["run"] else ""


def run(value: Any, _files: Files) -> str:
    if "phases" in value:
        return graph(value)
    again = "" if value["fresh"] else f" ({handed_in(value)})"
    return (
        f"run {short(value['run'])} on {value['owner']}{again}; "
        f"`muster runs {short(value['run'])}` shows how it goes"
    )


def handed_in(value: Any) -> str:
    """Why an order began no run of its own, and what to do where one is wanted."""
    if value.get("key"):
        return "it was handed in under this key before; another key starts another"
    return "it runs already; --again starts another"
