"""What people read about a home that became a machine."""

from typing import Any, Final

from muster.address import AUTO
from muster.cli.text import Files, clean, pairs, short
from muster.fleet.facts import LOGGED_IN, LOGGED_OUT
from muster.task.route import ENFORCED, UNENCLOSED

# Who can knock. What does not prove to be of the fleet is heard for an invitation only.
_HEARD_BY_ALL: Final = (
    "Its port can be reached from every network of this computer; machines of the fleet and",
    "invited ones are answered, nobody else. `listen` in config.toml narrows that to one",
    "address: 127.0.0.1:7447 is this computer alone.",
    "",
)
_HEARD_IN_PRIVATE: Final = (
    "Its port is open on this computer, and to the mesh (WireGuard, Tailscale) that it is in;",
    "where there is none, in its private networks: never to the internet. Machines of the fleet",
    "and invited ones are answered, nobody else. `muster doctor` says who can reach it; `listen`",
    "in config.toml is another choice.",
    "",
)


_STARTED: Final = {
    "service": "The daemon runs as a service, now and after each reboot.",
    "up": "The daemon runs until the next reboot; `muster service install`, where the system has\n"
    "services, starts it after each one.",
}


def init(value: Any, _files: Files) -> str:
    heard: tuple[str, ...] = ()
    if value["listen"].startswith(("0.0.0.0:", "[::]:", ":")):
        heard = _HEARD_BY_ALL
    elif value["listen"].startswith(AUTO):
        heard = _HEARD_IN_PRIVATE
    reached = value["address"] or ("nothing that others could dial" if value["listen"] else "")
    return "\n".join(
        [
            f"{value['name']} is now a fleet of one machine, with {value['operator']} as operator.",
            pairs(
                [
                    ("home", value["home"]),
                    ("fleet", short(value["fleet"])),
                    ("listens", value["listen"]),
                    ("reached at", reached),
                    ("agents", ", ".join(_agents(value))
                     or "none on PATH; `muster doctor` says more"),
                    ("tools", clean(", ".join(value["tools"]), 100)),
                    ("sandbox", _sandbox(value.get("sandbox", ""))),
                ]
            ),
            "",
            *heard,
            "Keep authority.seed and operator.seed of this home safe: a copy offline, mode 0600.",
            *_next(value),
        ]
    )  # fmt: skip


def _sandbox(said: str) -> str:
    """Whether work is enclosed here, in one line."""
    if not said:
        return ""
    if said == ENFORCED:
        return "work is enclosed here"
    if said.partition(":")[0] == UNENCLOSED:
        return "work that asks for none runs without one (--no-sandbox)"
    return f"{clean(said)}: this machine gets no work before; `muster doctor` says what helps"


def _agents(value: Any) -> list[str]:
    silent = [f"{clean(name)} (does not answer)" for name in value.get("silent", ())]
    return [_agent(*each) for each in value["agents"].items()] + silent


def _agent(name: str, login: str) -> str:
    """An agent, and whether it can begin."""
    known = {LOGGED_IN: "logged in", LOGGED_OUT: "not logged in"}
    return f"{clean(name)} ({known[login]})" if login in known else clean(name)


def _next(value: Any) -> list[str]:
    """What a person types now, here or on the next machine."""
    if not value["started"]:
        name = value["next"] or "NAME"
        return [
            f"Next: `muster up --detach`, then `muster invite {name}` for each further machine."
        ]
    lines = [_STARTED[value["started"]]]
    if value["invitation"]:
        lines += [
            f"\nNext, on the machine that becomes {value['next']}: install Muster, type once",
            "(in a day it is void; `muster invite NAME` makes another, also for another name):\n",
            f"  muster join {value['invitation']} --{value['started']}",
        ]
    return lines


def join(value: Any, _files: Files) -> str:
    roles = ", ".join(value["roles"])
    return "\n".join(
        [
            f"{value['name']} belongs to the fleet of {value['hub']} now ({roles}).",
            pairs(
                [
                    ("home", value["home"]),
                    ("fleet", short(value["fleet"])),
                    ("sandbox", _sandbox(value.get("sandbox", ""))),
                ]
            ),
            "",
            *(
                [_STARTED[value["started"]], "You are in: try `muster machines`, `muster status`."]
                if value["started"]
                else ["Next: `muster up --detach`, then `muster status`."]
            ),
        ]
    )
