"""What people read about runs and tasks."""

import time
from collections.abc import Mapping
from typing import Any

from muster.cli.text import ago, block, clean, clock, paint, pairs, short, span, state, table

Files = Mapping[str, str]


def check(value: Any, files: Files) -> str:
    name = files.get("spec", "spec")
    lines = [problem(each, name) for each in value["problems"]]
    if not any(not each["warning"] for each in value["problems"]):
        phases = value["phases"]
        count = "1 phase" if phases == 1 else f"{phases} phases"
        ready = "ready to run" if value["compared"] else "nothing is wrong with the file"
        lines.append(f"{value['name']}: {count}, {ready}")
    return "\n".join(lines)


def problem(each: Any, name: str) -> str:
    """A problem as compilers write them, so that editors find the place."""
    kind = paint("warning", "yellow") if each["warning"] else paint("error", "red")
    place = f"{name}:{each['line']}:{each['column']}: " if each["line"] else ""
    return f"{place}{kind}: {clean(each['text'])}"


def tasks(value: Any, _files: Files) -> str:
    return table(
        ("task", "state", "phase", "machine", "agent", "changed", "summary"),
        (_task(each) for each in value),
        "No task is open; `muster tasks --all` shows settled ones.",
    )


def _task(each: Any) -> tuple[Any, ...]:
    return (
        short(each["task"]),
        state(each["state"]),
        phase(each),
        each["machine"],
        each["agent"],
        ago(each["changed_ms"]),
        clean(outcome(each), 60),
    )


def outcome(each: Any) -> str:
    """What came of a task: where it went wrong the reason, else what its agent said."""
    said, reason = str(each.get("summary") or ""), str(each.get("reason") or "")
    return (said or reason) if each["state"] == "done" else (reason or said)


def phase(each: Any) -> str:
    """A phase, and the instance of it where there are several."""
    instance = clean(each.get("instance") or "")
    return f"{clean(each['phase'])}[{instance}]" if instance else clean(each["phase"])


def runs(value: Any, _files: Files) -> str:
    if isinstance(value, dict):
        return graph(value)
    return table(
        ("run", "state", "name", "repo", "owner", "begun", "summary"),
        (
            (
                short(each["run"]),
                state(each["state"]),
                each["name"],
                each["repo"],
                each["owner"],
                ago(each["opened_ms"]),
                clean(each["summary"] or stands(each), 50),
            )
            for each in value
        ),
        "There is no run yet; `muster run SPEC` begins one.",
    )


def stands(run: Any) -> str:
    """Whose return an open run waits for, "" for nobody's."""
    owner = clean(run.get("waits_for"))
    return f"waits for {owner}, which is away" if owner else ""


def graph(run: Any) -> str:
    """A run: its phases in their order, what came of each, and of what each waits."""
    head = f"{paint(clean(run['name']), 'bold')}  {short(run['run'])}  {state(run['state'])}"
    lines = [head + (f"  {clean(run['summary'], 100)}" if run["summary"] else "")]
    if away := stands(run):
        mend = f"`muster cancel {short(run['run'])}` ends it, and nobody takes it over"
        lines += [f"It {away}; if that machine is lost, {mend}."]
    phases, progress = run.get("phases") or {}, run.get("progress") or {}
    done: dict[str, list[Any]] = {}
    for each in run.get("tasks", ()):
        done.setdefault(str(each["phase"]), []).append(each)
    rows = []
    for name in [*phases, *(n for n in done if n not in phases)]:
        waits = ", ".join(phases.get(name, {}).get("after", ()))
        found = done.get(name)
        if not found:
            now = progress.get(name, {})
            reason = clean(now.get("reason"), 60)
            rows.append((name, state(now.get("state", "-")), "", "", "", waits, reason))
        for each in found or ():
            said = clean(each.get("waits") or outcome(each), 60)
            commit = clean(each["commit"])[:10]
            where = (phase(each), state(each["state"]), each["machine"], took(each))
            rows.append((*where, commit, waits, said))
    columns = ("phase", "state", "machine", "took", "commit", "after", "summary")
    lines.append(table(columns, rows, ""))
    lines += claimed(run)
    return "\n".join(line for line in lines if line)


def took(each: Any) -> str:
    """From when a task was opened to its end; of one that runs, since it was given away."""
    opened, changed = each.get("opened_ms"), each.get("changed_ms")
    if each["state"] in ("queued", "waiting") or not opened or not changed:
        return ""
    if each["state"] == "leased":
        return span(max(0, time.time_ns() // 1_000_000 - changed))
    return span(max(0, changed - opened))


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


def ask(value: Any, _files: Files) -> str:
    if "missing" in value:
        return f"{clean(value['text'])}:\n\n{block(value['skeleton'], '')}"
    if "phases" in value or value["run"]:
        return run(value, _files)
    # Without anybody to say yes the plan is the answer, fit for `muster ask … > plan.yaml`.
    return "Nothing was run." if value.get("declined") else str(value["spec"]).rstrip("\n")


def why(value: Any, _files: Files) -> str:
    task = value["task"]
    lines = [
        f"{paint(phase(task) or 'task', 'bold')}  {short(task['task'])}  {state(task['state'])}",
        pairs([("last", value.get("now", {}).get("reason") or task["reason"])]),
    ]
    lines += claimed(value)
    for each in value["decisions"]:
        lines += [
            "",
            _decision(each),
            _candidates(each["candidates"]),
        ]
        if gone := each.get("left"):
            machine, why_not = clean(each["machine"]), clean(gone["reason"], 200)
            lines.append(f"{clock(gone['t_ms'])}  {machine} has it no more: {why_not}")
    if value.get("question"):
        lines += ["", "It asks a person:", block(value["question"]), waits(task)]
    if (now := value.get("now")) and now["candidates"]:
        lines += ["", "now:", _candidates(now["candidates"])]
    return "\n".join(line for at, line in enumerate(lines) if line or at > 1)


def claimed(value: Any) -> list[str]:
    """What machines that do not own it say about it: shown, and counted for nothing."""
    return [
        f"{clean(each['machine'])} claims that it is {clean(each['state'])}, and does not own it"
        for each in value.get("claims") or ()
    ]


def waits(task: Any) -> str:
    """How a person answers a phase that waits for one."""
    return f"Answer with `muster decide {short(task['task'])} yes|no`."


def _decision(each: Any) -> str:
    who = f"{clean(each['machine'])} ({clean(each['agent'])})"
    return f"{clock(each['t_ms'])}  given to {who}, epoch {each['epoch'][0]}.{each['epoch'][1]}"


def _candidates(found: Any) -> str:
    rows = (
        (
            f"  {each['machine']}",
            paint("fits", "green") if each["fits"] else "no",
            str(each["score"]) if each["fits"] else "",
            clean("; ".join(each["reasons"]), 100),
        )
        for each in found
    )
    return table(("  machine", "fits", "score", "why"), rows, "  nobody was asked")


def cancel(value: Any, _files: Files) -> str:
    what = "run" if "run" in value else "task"
    if owner := value.get("left_for"):
        return (
            f"{what} {short(value[what])} is ended: {owner}, its owner, cannot be asked now and "
            f"obeys when it is back; if {owner} is lost, `muster revoke {owner}`"
        )
    return f"{what} {short(value[what])} is being cancelled"


def retry(value: Any, _files: Files) -> str:
    return f"task {short(value['task'])} is tried again now"


def decide(value: Any, _files: Files) -> str:
    said = {"approve": "yes", "reject": "no"}
    return f"task {short(value['task'])}: your {said[value['answer']]} is written down"


def questions(value: Any, _files: Files) -> str:
    return table(
        ("task", "question", "agent", "asked", "tool", "what", "paths"),
        (
            (
                short(each["task"]),
                each["question"],
                clean(each["actor"]),
                ago(each["asked_ms"]),
                clean(each["tool"]),
                clean(each["title"], 60),
                clean(", ".join(each["paths"]), 60),
            )
            for each in value
        ),
        "No agent of this machine waits for a permission; --on all asks every machine.",
    )


def answer(value: Any, _files: Files) -> str:
    return f"task {short(value['task'])}: {value['answer']} — {clean(value['title'], 60)}"


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


def fetch(value: Any, _files: Files) -> str:
    if "commit" in value:
        branch, commit = clean(value["branch"]), clean(value["commit"])
        return (
            f"its files are in the repository {clean(value['repo'])}, on the branch {branch}:\n"
            f"  git fetch && git checkout {branch}    # {commit}"
        )
    return "\n".join(
        f"{clean(each['path'])}{'/' if each['shape'] == 'folder' else ''}  {each['size']} bytes"
        for each in value["placed"]
    )
