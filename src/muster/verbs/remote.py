"""Verbs that do something on another machine as its person would: run a command there."""

from typing import Annotated, Final

from msgspec import Meta

from muster.node.attempts import command
from muster.verbs.declaration import Bound, Daemon, Perform, Stream, Words, data, pos, verb

# More rows or columns than any screen has.
SIDE_MAX: Final = 10_000


class Exec(Bound, frozen=True, kw_only=True):
    machine: Annotated[
        str,
        pos(
            "the machine that runs it; several with commas, `all`, label=NAME or role=NAME",
            kind="machine",
        ),
    ]
    argv: Annotated[
        Words, pos("the program and its words as they are; no shell reads them", behind=True)
    ]


@verb("exec", auth="order", runs="stream", group="The fleet", object="machine", of_machine=True,
      on="none", several="names", steps=True)  # fmt: skip
async def run(daemon: Daemon, call: Perform, stream: Stream, ask: Exec) -> None:
    """Run a command on a machine, in its person's home, with its input and output here.

    Its exit code is that of the command. Ctrl-C goes to the command, a second one ends it with all
    that it started; so does a link that breaks. What it leaves running is ended with it. On several
    machines nothing is typed into it, and what it wrote stands under the name of each.

        muster exec build -- uname -a
        muster exec build -- sh -c 'df -h | head -3'
        muster exec all -- uptime
    """
    await command.Session(daemon, call, stream).run(ask.argv, daemon.effects.environ)


Side = Annotated[int, Meta(ge=1, le=SIDE_MAX)]


class Login(Bound, frozen=True, kw_only=True):
    machine: Annotated[str, pos("the machine", kind="machine")]
    rows: Annotated[Side, data()] = 24
    columns: Annotated[Side, data()] = 80
    term: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]{0,39}\Z"), data()] = "dumb"


@verb("tty", auth="order", runs="stream", group="The fleet", object="machine", of_machine=True,
      on="none", steps=True)  # fmt: skip
async def login(daemon: Daemon, call: Perform, stream: Stream, ask: Login) -> None:
    """Be at a terminal of another machine, in its person's own shell.

    It has the size of yours, and follows it. Enter, `~` and `.` leave it whatever hangs there; what
    it left running is ended.

        muster tty build
    """
    session = command.Session(daemon, call, stream)
    await session.login(ask.rows, ask.columns, ask.term, daemon.effects.environ)
