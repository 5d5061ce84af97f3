"""`[sandbox]` of `config.toml`: what the owner of a machine says of how work is enclosed there.

Rule 1: what is of no use is named by its setting. Nothing here is looked for on the disk: a path
that is not there yet may be there when work asks for it.
Rule 2: a file that says nothing of it was written before there were sandboxes, and goes on to mean
what it meant. `init` and `join` write `default = "on"`.
"""

import os
import re
from typing import Annotated, Final, Literal

import msgspec

from muster.agent.sandbox.profile import USER_OF_ROOTS
from muster.errors import Broken, Malformed
from muster.task.enclosure import ALLOW, Terms
from muster.task.host_path import host_path_refusal
from muster.task.host_rule import host_refusal, host_rule
from muster.task.openings import OFF
from muster.task.problem import shown
from muster.task.units import SIZE, size_mib

PROGRAM: Final = "bwrap"
LIST_MAX: Final = 256
_PROCESSES_MAX: Final = 1 << 20
# Chosen arbitrarily: many times what a build with a thread per core and its tests start, and an
# eighth of what a small machine has. Who multiplies without end meets it in a moment.
PROCESSES: Final = 4096
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}|[1-9][0-9]{0,8}")

Texts = Annotated[tuple[str, ...], msgspec.Meta(max_length=LIST_MAX)]


class SandboxConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """`default` says whether work that says nothing is enclosed, `off` whether work that says
    `sandbox: off` is run. `program` encloses, "" for the bwrap on PATH. `paths` may be shown and
    `writable` written; `network` is the most that is reached, where it is said, `local` what may
    lead into the machine's own networks. `user` is who work runs as where the daemon is root, by
    name or number; `memory` and `processes` are what an attempt has at most, "" and 0 without end.
    """

    default: Literal["on", "off"] = OFF
    off: Literal["allow", "refuse"] = ALLOW
    program: str = ""
    paths: Texts = ()
    writable: Texts = ()
    network: Texts | None = None
    local: Texts = ()
    user: str = ""
    memory: str = ""
    processes: Annotated[int, msgspec.Meta(ge=0, le=_PROCESSES_MAX)] = PROCESSES

    def check(self) -> None:
        """Raises: Malformed naming the setting that is of no use."""
        for name, paths in (("paths", self.paths), ("writable", self.writable)):
            for path in paths:
                if refusal := host_path_refusal(path):
                    # The work folder is what a spec's path lies in; there is none here.
                    begins = path.startswith(("/", "~"))
                    what = (
                        refusal if begins else "is no path of this machine; write it from / or ~/"
                    )
                    raise Malformed(f"`{name}` names {shown(path)}, which {what}")
        for name, hosts in (("network", self.network or ()), ("local", self.local)):
            for host in hosts:
                if refusal := host_refusal(host):
                    raise Malformed(f"`{name}` names {shown(host)}, which {refusal}")
        if self.memory and not re.fullmatch(SIZE, self.memory):
            raise Malformed(f"`memory` is {shown(self.memory)}; write it as 512MiB or 8GiB")
        if self.program and not self.program.startswith("/"):
            raise Malformed(f"`program` is {shown(self.program)}; write its path from /")
        if self.user and not _USER.fullmatch(self.user):
            raise Malformed(
                f"`user` is {shown(self.user)}; write a user's name, or its number in quotes"
            )
        if self.user == "root":
            raise Malformed("`user` is root, which nothing is enclosed as; name another user")

    def terms(self) -> Terms:
        """What a decision is held against."""
        return Terms(
            default=self.default,
            off=self.off,
            network=None if self.network is None else tuple(map(host_rule, self.network)),
            local=tuple(map(host_rule, self.local)),
            read=self.paths,
            write=self.writable,
            memory_bytes=size_mib(self.memory) << 20 if self.memory else 0,
            processes=self.processes,
        )


def uid_of(user: str) -> int:
    """The uid that work drops to here: 0 where the daemon is no root and stays who it is.

    Raises: Broken where there is no such user, or it is root by another name.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return 0
    if not user:
        return USER_OF_ROOTS
    if user.isdigit():
        return int(user)
    import pwd  # noqa: PLC0415 - there is none on Windows, which runs no attempts

    try:
        found = pwd.getpwnam(user).pw_uid
    except KeyError:
        found = 0
    if not found:
        raise Broken(
            f"`user` under [sandbox] of config.toml is {user}, and this machine has no such user "
            "other than root: add the user, or name another one"
        )
    return found
