"""`muster reach`: where another machine is now, when it moved and nobody can tell this one."""

from typing import TYPE_CHECKING, Any

from muster.errors import Refused, Unreachable
from muster.fleet.invite import check_address
from muster.node import event as ev

if TYPE_CHECKING:
    from muster.node.daemon import Daemon


async def reach(daemon: "Daemon", call: ev.Perform) -> Any:
    """Dial a machine at an address, and remember it: the machine itself proves that it is there.

    Raises: Unreachable where nobody is, unless it is to be kept all the same; Refused where it is
    another machine.
    """
    record = daemon.core.roster.find(str(call.args["machine"]))
    address = check_address(str(call.args["address"]))
    if record.machine == daemon.core.machine:
        raise Refused(
            "a machine does not dial itself: `address` in config.toml says where others reach it"
        )
    answer = {"machine": record.name, "address": address, "linked": True}
    try:
        link = await daemon.http.dial(address, peer=record.machine)
    except Unreachable as error:
        if not call.args.get("anyway"):
            said = str(error).removesuffix("; try later")
            raise Unreachable(
                f"{record.name} is not there: {said}; nothing was changed, --anyway remembers the "
                "address all the same"
            ) from error
        daemon.machine.found_at(record.machine, address)
        daemon.dialler.look()
        return {**answer, "linked": False}
    daemon.machine.found_at(record.machine, address)
    daemon.supervisor.run("dial", daemon.dialler.adopt(link, address))
    return answer
