"""Verbs that do something on another machine as its person would: run a command there."""

from typing import Annotated

from muster.node.attempts import command
from muster.verbs.declaration import Daemon, Perform, Request, Stream, Words, pos, verb


class Exec(Request, frozen=True):
    machine: Annotated[str, pos("the machine that runs it", kind="machine")]
    argv: Annotated[
        Words, pos("the program and its words as they are; no shell reads them", behind=True)
    ]


@verb("exec", auth="order", runs="stream", group="The fleet", object="machine", of_machine=True,
      on="none", steps=True)  # fmt: skip
async def run(daemon: Daemon, call: Perform, stream: Stream, ask: Exec) -> None:
    """Run a command on a machine, in its person's home, with its input and output here.

    Its exit code is that of the command. Ctrl-C goes to the command, a second one ends it with all
    that it started; so does a link that breaks. What it leaves running is ended with it.

        muster exec build -- uname -a
        muster exec build -- sh -c 'df -h | head -3'
    """
    await command.Session(daemon, call, stream).run(ask.argv, dict(daemon.effects.environ))
