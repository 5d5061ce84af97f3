"""Verbs that the command leads through in several steps, each by the function of its name.

Rule: whatever would be refused is refused before anything is ordered.
"""

import contextlib
from typing import Any, NamedTuple

from muster.cli import follow, sign
from muster.cli.context import CommandContext
from muster.cli.parse import means_several
from muster.cli.show.spec import problem
from muster.cli.text import clean, short
from muster.errors import Malformed, NotFound, Refused, Unreachable
from muster.git.glob import matching


class Ordered(NamedTuple):
    """What a run is ordered with: what is signed, and how it is handed in."""

    args: dict[str, Any]
    options: dict[str, Any]


def run(context: CommandContext) -> int:
    """Order the run, follow it; the exit code."""
    if "." in context.command.on:
        from muster.cli import peer_run  # noqa: PLC0415 - few runs are asked of other fleets

        return peer_run.ask(context)
    return followed(context, begin(context, ordered(context)))


def ordered(context: CommandContext) -> Ordered:
    """What is to be signed for this run. Raises: what it could not begin with."""
    command = context.command
    text = command.args["spec"]
    repo = str(command.args.get("repo") or "")
    checked = context.ask("check", {"alone": True, "repo": repo, "spec": text})
    errors = [each for each in checked["problems"] if not each["warning"]]
    if errors:
        raise Malformed(
            "\n".join(
                [f"{command.files['spec']} is no spec that can run:"]
                + [problem(each, command.files["spec"]) for each in errors]
            )
        )
    args = sign.run_args(command.args, checked["repo"])
    if branch := str(command.options.get("push", "")):
        _push(context, checked, args, branch)
    base = args["base"] or checked["base"]
    if args["repo"] and base:
        # Where the repository is out of reach its owner looks, as soon as it can.
        with contextlib.suppress(Unreachable):
            context.ask("check.base", {"base": base, "repo": args["repo"]})
    options = {k: v for k, v in command.options.items() if k not in ("detach", "push")}
    return Ordered(args, {**options, "object": checked["name"]})


def begin(context: CommandContext, order: Ordered) -> Any:
    """Order it of the machine that is meant; the run that it began."""
    try:
        return context.ask("run", order.args, on=context.command.on, options=order.options)
    except Refused as error:
        from muster.task.problem import of_file  # noqa: PLC0415 - only for a mistake

        raise of_file(error, context.command.files["spec"]) from error


def followed(context: CommandContext, begun: Any) -> int:
    """Follow what was begun, unless nobody wants to; the exit code."""
    if context.command.options.get("detach"):
        context.show(begun)
        return 0
    return follow.follow(context, begun)


def _push(
    context: CommandContext, checked: dict[str, Any], args: dict[str, Any], branch: str
) -> None:
    """Give the run what it would have of a push of this branch. Raises: Malformed, NotFound."""
    patterns = checked.get("pushes")
    if not patterns:
        raise Malformed("--push is for a spec with `on: push`; leave it out, or add that line")
    if args["base"]:
        raise Malformed("--push says where the run starts; leave --base out")
    if not any(matching([branch], pattern) for pattern in patterns):
        raise Malformed(f"{branch} is none of the branches of on.push: {', '.join(patterns)}")
    asked = {"base": branch, "before": True, "repo": args["repo"]}
    found = context.ask("check.base", asked)
    args["base"] = found["commit"]
    args["values"] = {
        "push-branch": branch,
        "push-commit": found["commit"],
        "push-before": found.get("before", ""),
        **args["values"],
    }


def retry(context: CommandContext) -> int:
    """Try a task now; with a budget its run goes on with that, as another run; the exit code."""
    budget = context.command.options.pop("budget", "")
    if not budget:
        context.call()
        return 0
    task = context.ask("why", {"task": context.command.args["task"]})["task"]
    if not task["run"]:
        raise Refused(f"task {short(task['task'])} is of no run: submit it again with a budget")
    return _again(context, {"run": task["run"], "failed": True, "budget": budget})


def rerun(context: CommandContext) -> int:
    """Order again what a run was ordered to do, and follow it; the exit code."""
    return _again(context, context.command.args)


def _again(context: CommandContext, asked: dict[str, Any]) -> int:
    command, on = context.command, context.on
    order = context.ask("rerun", asked)
    kept, repo, base = order["kept"], order["repo"], order["base"]
    if kept and on and on != order["owner"]:
        raise Refused(
            f"{order['owner']} owns run {short(order['run'])}, and its results are kept there "
            "alone: leave --on out, or run all of it again"
        )
    _check_kept(context, order)
    args = {name: order[name] for name in ("base", "repo", "spec", "values")}
    args |= {name: order[name] for name in ("kept", "budget", "after") if order.get(name)}
    # Where all of it runs again, any machine may own it; as a rule the one that did.
    begun = context.ask("run", args, on=on or order["owner"], options={"object": order["name"]})
    parts = [f"kept: {', '.join(map(clean, kept))}"] if kept else []
    parts += [f"runs: {', '.join(map(clean, order['phases']))}"]
    parts += [f"from {clean(base)[:12] or 'the default branch as it is now'}"] if repo else []
    new, how = short(begun["run"]), "again, as"
    if not begun["fresh"]:
        how = f"is under way again already (`muster cancel {new}` ends that one), as"
    context.say(f"run {short(order['run'])} {how} {new}; {'; '.join(parts)}")
    if command.options.get("detach"):
        context.show(begun if context.json else {**begun, "fresh": True})
        return 0
    # What began no run of its own was said.
    return follow.follow(context, {**begun, "fresh": True})


def _check_kept(context: CommandContext, order: Any) -> None:
    """Raises: NotFound where a commit that is to be kept is gone from its repository."""
    run, repo, kept = order["run"], order["repo"], order["kept"]
    results = context.ask("run.results", {"run": run})["results"] if repo and kept else ()
    for each in results:
        where = {"branch": each["branch"], "commit": each["commit"], "repo": repo}
        if each["phase"] in kept and not context.ask("git.stands", where)["stands"]:
            raise NotFound(
                f"what phase {each['phase']} of run {short(run)} ended on is gone from repository "
                f"{repo}, by `muster repo prune` or by a loss: `muster rerun {short(run)}` runs "
                "all of it again"
            )


def runs(context: CommandContext) -> int:
    """Runs as they are, or as they go on; 0."""
    args, options = context.command.args, context.command.options
    if args.get("run"):
        if options.pop("follow", False):
            return watch(context)
    elif not context.json or options.get("follow"):
        # As many as a person reads, unless more are asked for.
        args |= {"more": True} | ({} if args.get("all") or args.get("limit") else {"limit": 30})
    if options.pop("follow", False) or context.command.watch:
        from muster.cli import watch as watching  # noqa: PLC0415 - few commands go on

        return watching.watch(context) if context.command.watch else watching.runs(context)
    context.call()
    return 0


def watch(context: CommandContext) -> int:
    """Follow a run, or one task of it; the exit code."""
    text = str(context.command.args["run"])
    run = context.ask("runs", {"run": text}, on=context.on)
    task, whole = "", run["name"] == text or run["run"].startswith(text)
    # A run has other names as well: what its branches are called.
    if "/" in text or (not whole and any(t["task"].startswith(text) for t in run["tasks"])):
        task = context.ask("why", {"task": text}, on=context.on)["task"]["task"]
    return follow.follow(context, {**run, "fresh": True}, task)


def ask(context: CommandContext) -> int:
    """Let an agent plan, then run the plan as `run` would; the exit code."""
    command = context.command
    value, code = context.inside()
    if code or command.options.get("detach") or context.json:
        context.show(value)
    if code or command.options.get("detach"):
        return code
    return follow.follow(context, value)


def check(context: CommandContext) -> int:
    """What is wrong with a spec: exit code 1 where it cannot run."""
    args, answer = context.command.args, None
    try:
        if context.on or not args.get("alone"):
            answer = context.ask("check", args, on=context.on)
    except (Unreachable, NotFound):
        if context.on:
            raise
        context.say(
            "the file alone was checked: no daemon runs here that knows the machines, so "
            "whether one meets the needs was not compared"
        )
    if answer is None:
        from msgspec import to_builtins  # noqa: PLC0415 - the daemon checks as a rule

        from muster.verbs.spec import problems  # noqa: PLC0415 - as above

        answer = to_builtins(problems(str(args["spec"]), repo=str(args.get("repo") or "")))
    elif not context.on and (base := answer.get("base")) and (repo := answer.get("repo")):
        # Whether the branch that the spec names is there.
        try:
            context.ask("check.base", {"base": base, "repo": repo})
        except NotFound as error:
            line, column = answer["base_at"]
            mistake = {"line": line, "column": column, "path": "base", "warning": False}
            answer["problems"].append({**mistake, "text": f"base: {error}"})
        except Unreachable as error:
            context.say(f"whether there is a branch {base} was not compared: {error}")
    context.show(answer)
    return int(any(not each["warning"] for each in answer["problems"]))


def repo(context: CommandContext) -> int:
    """Each action is a verb of its own authority; to add one is `repo` itself."""
    action = context.command.args["action"]
    if action == "add":
        context.call()
        return 0
    value = context.answer()
    context.show(value)
    return int(action == "sync" and any(each["error"] for each in value))


def cp(context: CommandContext) -> int:
    """Copy a file to or from another machine, or a folder; 0, or the worst of its files."""
    if context.command.args.get("recursive"):
        from muster.cli import folders  # noqa: PLC0415 - few copies are of folders

        return folders.copy(context)
    from muster.cli import copies  # noqa: PLC0415 - few commands copy

    return copies.copy(context)


def tty(context: CommandContext) -> int:
    """Be at a terminal of another machine; the exit code of its shell."""
    from muster.cli import remote  # noqa: PLC0415 - few commands are carried

    return remote.login(context)


def exec(context: CommandContext) -> int:
    """Run a command on another machine, or on several; its own exit code, or the worst."""
    if means_several(context.command.args["machine"]):
        from muster.cli import together  # noqa: PLC0415 - few commands are for several

        return together.run(context)
    from muster.cli import remote  # noqa: PLC0415 - few commands are carried

    return remote.run(context)
