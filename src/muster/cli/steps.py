"""Verbs that the command leads through in several steps, each by the function of its name.

Rule: whatever would be refused is refused before anything is ordered.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from muster.cli import live, order
from muster.cli.door import Door
from muster.cli.show.spec import problem
from muster.errors import Malformed, NotFound, Unreachable


def run(door: Door) -> int:
    """Order the run, follow it; the exit code."""
    command = door.command
    text = command.args["spec"]
    repo = str(command.args.get("repo") or "")
    checked = door.ask("check", {"alone": True, "repo": repo, "spec": text})
    errors = [each for each in checked["problems"] if not each["warning"]]
    if errors:
        raise Malformed(
            "\n".join(
                [f"{command.files['spec']} is no spec that can run:"]
                + [problem(each, command.files["spec"]) for each in errors]
            )
        )
    args = order.run_args(command.args, checked["repo"])
    _check_base(door, args["repo"], args["base"] or checked["base"])
    options = {k: v for k, v in command.options.items() if k != "detach"}
    begun = door.ask("run", args, on=command.on, options={**options, "object": checked["name"]})
    if command.options.get("detach"):
        door.show(begun)
        return 0
    return live.follow(door, begun)


def _check_base(door: Door, repo: str, base: str) -> None:
    """Raises: NotFound where a run could not start, before anything is ordered."""
    if not repo or not base:
        return
    # Where the repository is out of reach its owner looks, as soon as it can.
    with contextlib.suppress(Unreachable):
        door.ask("check.base", {"base": base, "repo": repo})


def ask(door: Door) -> int:
    """Let an agent plan, then run the plan as `run` would; the exit code."""
    command = door.command
    value, code = door.inside()
    if code or command.options.get("detach") or door.json:
        door.show(value)
    if code or command.options.get("detach"):
        return code
    return live.follow(door, value)


def check(door: Door) -> int:
    """What is wrong with a spec: exit code 1 where it cannot run."""
    args = door.command.args
    answer = door.ask("check", args, on=door.on) if door.on else _checked(door, args)
    door.show(answer)
    return int(any(not each["warning"] for each in answer["problems"]))


def _checked(door: Door, args: Mapping[str, Any]) -> Any:
    """What is wrong with a spec; the file alone where no daemon runs."""
    try:
        if not args.get("alone"):
            return _with_base(door, door.ask("check", args))
    except (Unreachable, NotFound):
        door.say(
            "the file alone was checked: no daemon runs here that knows the machines, so "
            "whether one meets the needs was not compared"
        )
    from msgspec import to_builtins  # noqa: PLC0415 - the daemon checks as a rule

    from muster.verbs.spec import problems  # noqa: PLC0415 - as above

    return to_builtins(problems(str(args["spec"]), repo=str(args.get("repo") or "")))


def _with_base(door: Door, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer of a check, and whether the branch that the spec names is there."""
    base, repo = answer.get("base"), answer.get("repo")
    try:
        if base and repo:
            door.ask("check.base", {"base": base, "repo": repo})
    except NotFound as error:
        line, column = answer["base_at"]
        mistake = {"line": line, "column": column, "path": "base", "warning": False}
        answer["problems"].append({**mistake, "text": f"base: {error}"})
    except Unreachable as error:
        door.say(f"whether there is a branch {base} was not compared: {error}")
    return answer


def repo(door: Door) -> int:
    """To add a repository is an order; to look at them is nobody's."""
    if door.command.args["action"] == "list":
        door.show(door.ask("repo.list", {}, on=door.on))
    else:
        door.call()
    return 0
