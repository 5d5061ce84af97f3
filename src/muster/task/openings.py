"""What a phase asks of its sandbox: whether there is one, which hosts and paths it opens.

Rule 1: an order need not come from a spec that was read, so every text is judged here again.
Rule 2: whoever hands on work opens no more by it than was opened for its own; an agent never has
        anything ordered without a sandbox. What says nothing is as its machine's owner has it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from muster.errors import Malformed
from muster.task.host_path import host_path_refusal, is_of_host, lies_in, writable_refusal
from muster.task.host_rule import NONE, HostRule, host_refusal, host_rule, uncovered
from muster.task.problem import shown
from muster.task.spec import Paths, Phase, listed

ON: Final = "on"
OFF: Final = "off"


class Openings(NamedTuple):
    """`sandbox` is on, off or "" where nothing is said.

    `network` are hosts beside those of the agent itself; with `cut` it reaches none, not even
    those. `read` and `write` are paths of the machine, `free` protected ones of the work folder.
    """

    sandbox: str = ""
    network: tuple[HostRule, ...] = ()
    cut: bool = False
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    free: tuple[str, ...] = ()

    @property
    def is_off(self) -> bool:
        return self.sandbox == OFF


UNSAID: Final = Openings()


def openings_of(order: Mapping[str, Any]) -> Openings:
    """What the order of a phase asks. Raises: Malformed where that cannot be read."""
    try:
        sandbox = msgspec.convert(order.get("sandbox", ""), str)
        hosts = listed(msgspec.convert(order.get("network"), str | list[str] | None))
        paths = msgspec.convert(order.get("paths", {}), Paths)
    except msgspec.ValidationError as error:
        raise Malformed(f"what this task asks of its sandbox cannot be read: {error}") from error
    return _judged(sandbox, hosts, paths)


def openings(phase: Phase) -> Openings:
    """As `openings_of`, of a phase of a spec."""
    return _judged(phase.sandbox or "", listed(phase.network), phase.paths or Paths())


def _judged(sandbox: str, hosts: tuple[str, ...], paths: Paths) -> Openings:
    cut = hosts == (NONE,)
    read, write = listed(paths.read), listed(paths.write)
    if sandbox not in {"", ON, OFF}:
        raise Malformed(f"{shown(sandbox)} is no sandbox: it is on or off")
    judged = [(each, host_refusal(each)) for each in (() if cut else hosts)]
    judged += [(each, host_path_refusal(each)) for each in read]
    judged += [(each, writable_refusal(each)) for each in write]
    for text, refusal in judged:
        if refusal:
            raise Malformed(f"{shown(text)} {refusal}")
    return Openings(
        sandbox=sandbox,
        network=() if cut else tuple(dict.fromkeys(map(host_rule, hosts))),
        cut=cut,
        read=read,
        write=tuple(each for each in write if is_of_host(each)),
        free=tuple(each for each in write if not is_of_host(each)),
    )


def wider(most: Openings, asked: Openings) -> Iterator[str]:
    """Why what is handed on would be opened for more than what hands it on was."""
    if asked.is_off:
        yield "has sandbox: off, and only a person has something done without a sandbox"
    elif most.sandbox == ON and asked.sandbox != ON:
        yield "is not bound to be enclosed, which its asker is: say `sandbox: on`"
    if most.cut and not asked.cut:
        yield "reaches its agent's hosts, and its asker reaches nothing: say `network: none`"
    if others := uncovered(most.network, asked.network):
        named = " or ".join(map(str, most.network)) or "none beside its agent's own"
        yield f"reaches the host {others[0]}, and may reach {named}"
    for path in asked.read:
        if not lies_in(path, (*most.read, *most.write)):
            yield f"is shown {path} of the machine, which its asker is not"
    for path in (*asked.write, *asked.free):
        if not lies_in(path, (*most.write, *most.free)):
            yield f"may write to {path}, and its asker may not"


def narrowed(most: Openings) -> dict[str, Any]:
    """The keys of a phase that keep within what its asker is opened for."""
    found = {"sandbox": ON} if most.sandbox == ON else {}
    return {**found, "network": NONE} if most.cut else found
