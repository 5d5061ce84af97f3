"""Verbs about machines and who may what; the rules are those of `table.py`."""

from typing import Final

from muster.verbs.verb import Verb, flag, opt, pos, words

_LABEL: Final = words("label", "a label for `needs: label`; give it several times")
_LISTEN: Final = "host:port where this machine listens for others"
_ADDRESS: Final = "host:port under which others reach it (default: from --listen)"

FLEET: Final = (
    Verb(
        "init", "start a fleet on this machine", "local", "client", "muster.verbs.setup:init",
        (
            opt("name", "this machine's name (default: its host name)"),
            opt("operator", "your name, as it will stand in the log (default: your login)"),
            opt("listen", _LISTEN, "0.0.0.0:7447"),
            opt("address", _ADDRESS),
            _LABEL,
        ),
    ),
    Verb(
        "invite", "print one string that lets one machine join", "order", "daemon",
        "muster.verbs.fleet:invite",
        (
            pos("name", "the name the machine will have"),
            opt("address", "host:port under which it reaches the hub (default: as configured)"),
            opt("hours", "how long the invitation counts", 24),
            opt("roles", "workstation, mobile, edge or hub, several with commas", "workstation"),
        ),
        object="name", acts="hub",
    ),
    Verb(
        "join", "make this machine a member, with the string that `invite` printed", "local",
        "client", "muster.verbs.setup:join",
        (
            pos("invitation", "muster1.…"),
            opt("name", "this machine's name (default: the one it was invited under)"),
            opt("listen", f"{_LISTEN}; empty: it only dials"),
            opt("address", _ADDRESS),
            _LABEL,
        ),
    ),
    Verb(
        "enrol", "take a joining machine in", "nothing", "daemon", "muster.verbs.fleet:enrol",
        hidden=True,
    ),
    Verb(
        "renew", "issue fresh papers for a member", "peer", "daemon", "muster.verbs.fleet:renew",
        hidden=True,
    ),
    Verb(
        "revoke", "shut a machine or an operator out everywhere, at once and for good", "order",
        "daemon", "muster.verbs.fleet:revoke",
        (pos("name", "the machine or operator"), opt("reason", "why, for the log")),
        object="name", acts="hub",
    ),
    Verb(
        "grant", "allow a machine, an agent or a person one verb", "order", "daemon",
        "muster.verbs.fleet:grant",
        (
            pos("to", "operator key, agent@machine, machine or role"),
            pos("verb", "the verb, or *"),
            opt("object", "what it may be used on", "*"),
            opt("days", "how long", 30),
            flag("take", "take the grant back instead"),
        ),
        object="verb", acts="hub",
    ),
    Verb(
        "up", "run this machine's daemon", "local", "client", "muster.verbs.service:up",
        (flag("detach", "return once it answers; it goes on in the background"),),
    ),
    Verb("down", "stop this machine's daemon", "local", "client", "muster.verbs.service:down"),
    Verb(
        "stop", "end the daemon after its current step", "local", "loop",
        "muster.verbs.fleet:stop", hidden=True,
    ),
    Verb(
        "status", "what this machine is doing, in one screen", "local", "daemon",
        "muster.verbs.status:status",
        (flag("verbose", "also ids and the counters of each part", bare=True),),
    ),
    Verb(
        "machines", "every machine of the fleet, and how it is", "local", "daemon",
        "muster.verbs.fleet:machines",
    ),
    Verb(
        "doctor", "check this machine and say how to mend what is wrong", "local", "client",
        "muster.verbs.doctor:doctor",
    ),
    Verb(
        "relay", "a way to another machine, through this one", "peer", "loop",
        "muster.verbs.relay:carry", hidden=True,
    ),
    Verb(
        "relay.serve", "another machine wants a link, through the one that asks", "peer", "loop",
        "muster.verbs.relay:serve", hidden=True,
    ),
    Verb(
        "facts", "what this machine says about itself", "local", "daemon",
        "muster.verbs.fleet:facts", hidden=True,
    ),
    Verb(
        "target", "the machine that should own new work", "local", "daemon",
        "muster.verbs.fleet:target", hidden=True,
    ),
)  # fmt: skip
