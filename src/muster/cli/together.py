"""One command on several machines at once: `muster exec all -- …`.

Rule 1: each is an order and a stream of its own, as of one machine; what it wrote is shown when it
is over, under its machine's name.
Rule 2: nothing is typed into any: which of them would read it is not to be guessed.
Rule 3: Ctrl-C ends the command everywhere, by leaving.
"""

import sys
from typing import Any

from muster.channel import strand
from muster.cli import several
from muster.cli.context import CommandContext, signing
from muster.cli.remote import code_of
from muster.cli.strands import Strands
from muster.errors import Exhausted, Unreachable
from muster.limits import CALL_BYTES_MAX

_NAMES = {strand.OUTPUT: "output", strand.ERRORS: "errors"}


def run(context: CommandContext) -> int:
    """The command on each machine that is meant; the worst exit code of all."""
    args = context.command.args
    rows = several.meant(context.ask("machines", {}), args["machine"])
    # Once, and before there are threads.
    signing()

    def ask(machine: str) -> tuple[Any, int]:
        said, code = _ran(context, machine, args["argv"])
        if not context.json:
            return said, code
        texts = {_NAMES[name]: raw.decode("utf-8", "replace") for name, raw in said.items()}
        return {"code": code, **texts}, code

    def put(_name: str, said: dict[int, bytearray], code: int) -> bool:
        for name, stream in ((strand.OUTPUT, sys.stdout), (strand.ERRORS, sys.stderr)):
            raw = bytes(said[name])
            stream.flush()
            # What is shown next begins a line.
            stream.buffer.write(raw if raw.endswith(b"\n") or not raw else raw + b"\n")
            stream.flush()
        if code:
            context.say(f"it ended with exit code {code}")
        return code == 0

    return several.each_of(context, rows, ask, put)


def _ran(
    context: CommandContext, machine: str, argv: list[str]
) -> tuple[dict[int, bytearray], int]:
    """What it wrote there, and its exit code. Raises: what that machine refused with."""
    said = {name: bytearray() for name in _NAMES}
    with context.stream_of("exec", {"argv": argv, "machine": machine}, machine) as (client, _):
        far = Strands(client)
        far.put(strand.INPUT, b"")
        for name, piece in far.to_the_end():
            if name == strand.END:
                # All of it is here: the far machine waits for that.
                far.flow.close()
                return said, code_of(piece)
            if name in said:
                said[name] += piece
                if len(said[name]) > CALL_BYTES_MAX:
                    raise Exhausted(
                        "it writes more than is kept of each of several machines: ask it alone"
                    )
    raise Unreachable("how the command ended there is not known, what it left is ended there")
