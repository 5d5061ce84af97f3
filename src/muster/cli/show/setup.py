"""What people read about a home that became a machine."""

from typing import Any, Final

from muster.cli.text import Files, pairs

# Who can knock. What does not prove to be of the fleet is heard for an invitation only.
_HEARD_BY_ALL: Final = (
    "Its port can be reached from every network of this computer; machines of the fleet and",
    "invited ones are answered, nobody else. `listen` in config.toml narrows that to one",
    "address: 127.0.0.1:7447 is this computer alone.",
    "",
)


def init(value: Any, _files: Files) -> str:
    heard = _HEARD_BY_ALL if value["listen"].startswith(("0.0.0.0:", "[::]:", ":")) else ()
    return "\n".join(
        [
            f"{value['name']} is now a fleet of one machine, with {value['operator']} as operator.",
            pairs(
                [
                    ("home", value["home"]),
                    ("fleet", value["fleet"]),
                    ("listens", value["listen"]),
                    ("reached at", value["address"]),
                ]
            ),
            "",
            *heard,
            "Keep authority.seed and operator.seed of this home safe: a copy offline, mode 0600.",
            "Next: `muster up --detach`, then `muster invite NAME` for each further machine.",
        ]
    )


def join(value: Any, _files: Files) -> str:
    roles = ", ".join(value["roles"])
    return "\n".join(
        [
            f"{value['name']} belongs to the fleet of {value['hub']} now ({roles}).",
            pairs([("home", value["home"]), ("fleet", value["fleet"])]),
            "",
            "Next: `muster up --detach`, then `muster status`.",
        ]
    )
