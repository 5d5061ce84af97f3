"""What an attempt leaves: one commit, by the agent, signed by its machine.

Rule 1: the author is the agent, the committer is the machine, and the machine's `git` key signs.
Rule 2: the commit object is built and signed here, in memory; no key file, no signing program.

Git checks it like any SSH-signed commit: `git verify-commit` with an `allowed_signers` file
that has the machine's key.
"""

from pathlib import Path
from typing import Final, NamedTuple

from muster.errors import Forged, Malformed
from muster.git import command as git
from muster.git import openssh
from muster.log import keys

_SIGNATURE: Final = b"gpgsig "


class Signature(NamedTuple):
    """Who made a commit and when."""

    agent: str
    """`claude@studio`"""
    machine: str
    """`studio`"""
    seconds: int
    signer: keys.Signer


class Maker(NamedTuple):
    """Who must have made a commit for it to count."""

    agent: str
    """`claude@studio`"""
    machine: str
    """`studio`"""
    public: bytes
    """The machine's `git` key."""


def person(name: str) -> str:
    """An agent or a machine in git's form: `claude@studio <claude@studio.muster>`."""
    if not name or any(mark in "<>\n\r\0" or not mark.isprintable() for mark in name):
        raise Malformed(f"{git.clean(name)!r} cannot be the author of a commit.")
    return f"{name} <{name}.muster>" if "@" in name else f"{name} <muster@{name}.muster>"


async def write(
    gitdir: Path, tree: str, parents: list[str], message: str, signature: Signature
) -> str:
    """Write the signed commit object; the id of it. No ref moves."""
    raw = signed(tree, parents, message, signature)
    answer = await git.run_async(
        [f"--git-dir={gitdir}", "hash-object", "-t", "commit", "-w", "--stdin"], gitdir, stdin=raw
    )
    return git.object_id(answer.text, "The new commit")


def signed(tree: str, parents: list[str], message: str, signature: Signature) -> bytes:
    """The bytes of the commit object. Pure."""
    when = f"{signature.seconds} +0000"
    head = "".join(
        [
            f"tree {tree}\n",
            *(f"parent {parent}\n" for parent in parents),
            f"author {person(signature.agent)} {when}\n",
            f"committer {person(signature.machine)} {when}\n",
        ]
    ).encode()
    text = message.replace("\0", "").strip().encode() + b"\n"
    armoured = openssh.sign(signature.signer, head + b"\n" + text)
    # A header's further lines are indented by a space, as git does it.
    folded = armoured.strip().replace("\n", "\n ").encode("ascii")
    return head + _SIGNATURE + folded + b"\n\n" + text


def check(raw: bytes, maker: Maker) -> None:
    """Check that this commit object is by this agent, and signed by its machine. Pure.

    Raises: Forged.
    """
    head, gap, text = raw.partition(b"\n\n")
    kept, armoured, inside = [], [], False
    for line in head.split(b"\n"):
        if line.startswith(_SIGNATURE):
            inside = True
            armoured.append(line.removeprefix(_SIGNATURE))
        elif inside and line.startswith(b" "):
            armoured.append(line[1:])
        else:
            inside = False
            kept.append(line)
    if not gap or not armoured:
        raise Forged("The commit is not signed; only commits by a machine's key count.")
    message = b"\n".join(kept) + b"\n\n" + text
    found = openssh.open_signature(b"\n".join(armoured).decode("ascii", "replace"), message)
    if found[0] != maker.public or not keys.verify(*found):
        raise Forged("The commit is not signed by the machine that reported it; it does not count.")
    for role, name in (("author", maker.agent), ("committer", maker.machine)):
        wanted = f"{role} {person(name)} ".encode()
        lines = [line for line in kept if line.startswith(f"{role} ".encode())]
        if len(lines) != 1 or not lines[0].startswith(wanted):
            raise Forged(f"The commit names another {role} than {name}; it does not count.")
