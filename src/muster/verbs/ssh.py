"""Verbs about sshd as a door: letting the fleet in through it, and what a machine shows to one."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from muster.errors import Refused, Unreachable
from muster.fleet.ssh_certificate import SshCertificates, issue_ssh
from muster.node.incarnations.doubt import Doubt
from muster.node.verb import Line
from muster.verbs.declaration import (
    Call,
    Core,
    Daemon,
    Nothing,
    Perform,
    Request,
    Stream,
    data,
    opt,
    pos,
    verb,
)
from muster.verbs.revoke import authority_of


class Ssh(Request, frozen=True):
    action: Annotated[
        Literal["trust", "untrust"],
        pos("trust: let the machines of the fleet in; untrust: let none in any more"),
    ]
    file: Annotated[str, opt("the file of authorized keys (default: ~/.ssh/authorized_keys)")] = ""


class Trusted(Struct, frozen=True):
    """What was done, in which file, and how many machines may come in now."""

    did: Literal["trusted", "untrusted"]
    file: str
    machines: int


@verb(
    "ssh", auth="local", runs="async", group="The fleet",
    says=(
        Line("{machines} machines of the fleet may come in through sshd, by {file}: each runs "
             "muster-ssh-serve and nothing else.", "did=trusted"),
        Line("No machine of the fleet comes in through sshd any more, by {file}.",
             "did=untrusted"),
    ),
)  # fmt: skip
async def ssh(daemon: Daemon, call: Perform, ask: Ssh) -> Trusted:
    """Let the machines of the fleet in through the sshd of this computer, as links and no more.

    One line in your authorized_keys names the fleet's key; machines that join or are revoked later
    are followed. No shell, no terminal and no forwarding comes of it.

        muster ssh trust
        muster ssh untrust
    """
    fleet, door = daemon.machine.fleet, daemon.ssh
    link = daemon.core.links.get(call.link)
    if ask.file and not (link is not None and link.local):
        raise Refused("which file it is says whoever is at that machine: leave --file away")
    if ask.action == "untrust":
        return Trusted("untrusted", str(door.trust.take(fleet)), 0)
    keys, others = await door.known(), door.others()
    if keys is None:
        raise Unreachable(
            "this machine does not know the fleet's SSH key yet: a hub gives it, and none that is "
            "reached did so; say it again when one is (`muster machines`)"
        )
    file = door.trust.give(fleet, keys.authority, others, ask.file)
    return Trusted("trusted", str(file), len(others))


@verb("ssh.certificates", auth="peer")
def certificates(core: Core, call: Call, ask: Nothing) -> SshCertificates:
    """SSH certificates for the machine that asks.

    For its own key, which its record names.
    """
    core.part(Doubt).check_once("nobody's certificates are renewed")
    return issue_ssh(authority_of(core), core.roster.machine(call.peer), core.now.wall_ms)


class Serve(Request, frozen=True):
    sshd: Annotated[int, Meta(ge=0, le=1 << 31), data()] = 0


@verb("ssh.serve", auth="local", runs="stream")
async def serve(daemon: Daemon, call: Perform, stream: Stream, ask: Serve) -> None:
    """A link of another machine, which came through sshd."""
    await daemon.ssh.serve(call, stream, ask.sshd)
