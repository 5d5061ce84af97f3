"""A spec that a machine of another fleet is asked to do: `muster run FILE --on machine.fleet`.

Rule: whatever no grant over there could let is refused here, before anything is ordered. What that
fleet lets, and what becomes of it, its own word says.
"""

from typing import Any, Final

from muster.cli import sign
from muster.cli.context import CommandContext
from muster.cli.show.run import line
from muster.cli.show.spec import problem
from muster.cli.text import clean, short
from muster.errors import Malformed, NotFound

NOT_DONE_EXIT: Final = 1
# What another fleet is not told: each says what it is for here.
_OWN: Final = ("push", "value", "again")


def ask(context: CommandContext) -> int:
    """Ask for it, wait for its end; the exit code."""
    command, on = context.command, context.command.on
    for name in _OWN:
        if command.args.get(name) or command.options.get(name):
            raise Malformed(f"--{name} is for runs of this fleet: another one is asked for a spec")
    checked = context.ask("check", {"alone": True, "spec": command.args["spec"]})
    name = command.files["spec"]
    if wrong := [problem(each, name) for each in checked["problems"] if not each["warning"]]:
        raise Malformed(f"{name} is no spec that can run:\n{wrong[0]}")
    spec = context.ask("peer.spec", {"spec": command.args["spec"], "to": on})["spec"]
    given = sign.run_args(command.args, checked["repo"])
    args = {"to": on, "spec": spec, "repo": given["repo"], "base": given["base"]}
    args |= {"key": key} if (key := str(command.options.get("key") or "")) else {}
    asked = context.ask("peer.ask", {name: each for name, each in args.items() if each})
    task = str(asked["task"])
    if command.options.get("detach"):
        context.show({"run": task, "fresh": asked["fresh"], "owner": on})
        return 0
    context.say(f"task {short(task)} is asked of {on}; `muster await {short(task)}` waits for it, "
                f"`muster cancel {short(task)}` takes it back")  # fmt: skip
    try:
        answer = context.ask("await.end", {"what": [task], "any": False, "timeout": ""})
    except KeyboardInterrupt:
        context.say(
            f"\ntask {short(task)} goes on there; `muster await {short(task)}` waits for it"
        )
        raise
    (end,) = answer["ends"]
    run = context.ask("runs", {"run": task})
    if context.json:
        context.show(run)
    else:
        print(line(run), flush=True)
    _tell(context, on, end)
    return 0 if end["state"] == "done" else NOT_DONE_EXIT


def _tell(context: CommandContext, on: str, end: dict[str, Any]) -> None:
    for each in end.get("result", ()):
        if each.get("said"):
            context.say(f"{clean(each['phase'])}: {clean(each['said'], 2_000)}", whole=True)
    if end["state"] == "removed":
        fleet = on.partition(".")[2]
        raise NotFound(
            f"fleet {fleet} was removed here: nothing more is heard of what it was asked"
        )
