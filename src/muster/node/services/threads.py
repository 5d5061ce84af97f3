"""The threads of machines that this one belongs to, by what people call them.

Rule: any machine can open a thread of any name and add us. A name alone means the one that this
machine keeps, or else the only one; of several, none.
"""

from typing import TYPE_CHECKING

from muster.errors import NotFound, Refused
from muster.log.stream import Scope, group_owner

if TYPE_CHECKING:
    from muster.node.core import Core


def groups(core: "Core", wanted: str) -> list[Scope]:
    """The groups that we belong to: all, those of a name, or NAME@MACHINE for one of those."""
    name, at, keeper = wanted.partition("@")
    return [
        scope
        for scope, members in sorted(core.roster.groups.items())
        if core.machine in members
        and name in ("", scope.rpartition(".")[2])
        and (not at or keeper in (group_owner(scope), keeper_of(core, scope)))
    ]


def keeper_of(core: "Core", scope: Scope) -> str:
    """The name of the machine that keeps a thread."""
    return core.membership.name_of(group_owner(scope) or "")


def group_of(core: "Core", name: str) -> Scope:
    """The group of this name that we belong to. Raises: NotFound, Refused."""
    found = groups(core, name) if name else []
    if not found:
        raise NotFound(
            f"this machine is in no thread {name!r}; open it with `muster thread {name}`"
        )
    if len(found) > 1:
        mine = [scope for scope in found if group_owner(scope) == core.machine]
        if mine:
            return mine[0]
        names = " or ".join(f"thread:{name}@{keeper_of(core, scope)}" for scope in found[:6])
        raise Refused(f"several machines keep a thread {name!r}: say {names}")
    return found[0]
