"""Verbs about machines and who may what; the rules are those of `node/verb.py`."""

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
            opt("listen", _LISTEN, "0.0.0.0:7447", empty=True),
            opt("address", _ADDRESS),
            _LABEL,
        ),
    ),
    Verb(
        "invite", "print one string that lets one machine join", "order", "step",
        "muster.verbs.fleet:invite",
        (
            pos("name", "the name the machine will have"),
            opt("address", "host:port under which it reaches the hub (default: as configured)"),
            opt("hours", "how long the invitation counts", 24),
            opt("roles", "workstation, mobile, edge or hub, several with commas", "workstation"),
        ),
        object="name", target="authority",
    ),
    Verb(
        "join", "make this machine a member, with the string that `invite` printed", "local",
        "client", "muster.verbs.setup:join",
        (
            pos("invitation", "muster1.…"),
            opt("name", "this machine's name (default: the one it was invited under)"),
            opt("listen", f"{_LISTEN}; empty: it only dials", empty=True),
            opt("address", _ADDRESS),
            _LABEL,
        ),
    ),
    Verb(
        "role", "say what a machine is for: hub, workstation, mobile, edge", "order", "step",
        "muster.verbs.role:give",
        (
            pos("name", "the machine"),
            pos("roles", "its roles from now on, several with commas"),
            opt("address", "host:port under which others reach it, where it is this machine"),
        ),
        object="name", target="authority",
    ),
    Verb(
        "enrol", "take a joining machine in", "nothing", "step", "muster.verbs.fleet:enrol",
        hidden=True,
    ),
    Verb(
        "renew", "issue fresh papers for a member", "peer", "step", "muster.verbs.fleet:renew",
        hidden=True,
    ),
    Verb(
        "revoke", "shut a machine or an operator out everywhere, at once and for good", "order",
        "step", "muster.verbs.revoke:revoke",
        (
            pos("name", "the machine or operator, by name or id (its beginning is enough)"),
            flag("machine", "it is a machine, where an operator has the same name"),
            flag("operator", "it is an operator, where a machine has the same name"),
            flag("last", "also where it is the only operator"),
            opt("reason", "why, for the log", empty=True),
            flag("yes", "do not ask first, which is done on a terminal only", unsigned=True),
        ),
        object="name", target="authority",
        destroys="{sort} {name} is shut out everywhere, for good: its key never counts again",
        asks="revoke.check",
    ),
    Verb(
        "revoke.check", "who is meant by a revocation, and whether it would be refused", "local",
        "step", "muster.verbs.revoke:check",
        (
            pos("name", "the machine or operator"), flag("machine", "a machine"),
            flag("operator", "an operator"), flag("last", "also the only operator"),
        ),
        hidden=True,
    ),
    Verb(
        "grant", "allow a key, a machine or a role one verb; `muster grants` lists them", "order",
        "step", "muster.verbs.grant:grant",
        (
            pos("to", "a key, machine:NAME or role:NAME (the sort may be left out)"),
            pos("verb", "the verb, or *; `muster grants --verbs` lists them"),
            opt("object", "what it may be used on", "*"),
            opt("days", "how long", 30),
            flag("take", "take the grant back instead"),
        ),
        object="verb", target="hub",
    ),
    Verb(
        "grant.check", "whom and what a grant means, and whether it has an effect", "local",
        "step", "muster.verbs.grant:check",
        (
            pos("to", "whom"), pos("verb", "the verb"), opt("object", "on what", "*"),
            flag("take", "it is to be taken back"),
        ),
        hidden=True,
    ),
    Verb(
        "grants", "every grant that stands, and what can be granted", "local", "step",
        "muster.verbs.grant:grants",
        (flag("verbs", "what can be granted, and what the object of each is"),),
    ),
    Verb(
        "operator", "who orders in this fleet: list them, add one, shut one out", "local", "client",
        "muster.verbs.operator:operator",
        (
            pos("action", "add, list, revoke, or key: the public key of this home's operator",
                choices=("add", "list", "revoke", "key")),
            pos("name", "the operator", required=False, actions=("add", "revoke"),
                needed=("add", "revoke")),
            opt("key", "what `muster operator key` printed where the new operator will order",
                actions=("add",)),
            flag("here", "the key of this home, made where there is none; needs authority.seed",
                 actions=("add",)),
            flag("last", "revoke also the only one", actions=("revoke",)),
            opt("reason", "why it is revoked, for the log", actions=("revoke",), empty=True),
            flag("yes", "do not ask first", unsigned=True, actions=("revoke",)),
        ),
    ),
    Verb(
        "operators", "every operator, as the log has them", "local", "step",
        "muster.verbs.operator:listing", hidden=True,
    ),
    Verb(
        "operator.free", "whether a name can be an operator's", "local", "step",
        "muster.verbs.operator:free", (pos("name", "the name"),), hidden=True,
    ),
    Verb(
        "operator.add", "make an operator of a key", "order", "step", "muster.verbs.operator:add",
        (pos("name", "the operator"), pos("key", "the public key")),
        hidden=True, object="name", target="authority", operators_only=True,
    ),
    Verb(
        "operator.record", "take in an operator that the authority signed", "local", "step",
        "muster.verbs.operator:record", (pos("record", "the signed record"),), hidden=True,
    ),
    Verb(
        "device", "let another machine order with a key of its own: add, join, list, revoke",
        "local", "client", "muster.verbs.device:device",
        (
            pos("action", "add MACHINE prints a string; join STRING uses it there; list; "
                "revoke MACHINE", choices=("add", "join", "list", "revoke")),
            pos("what", "the machine, or the string", required=False,
                actions=("add", "join", "revoke"), needed=("add", "join", "revoke")),
            words("may", "VERB or VERB:OBJECT that it may order (default: what a person does all "
                  "day); give it several times", actions=("add",)),
            opt("days", "how long it may order", 365, actions=("add",)),
            opt("minutes", "how long one order of it may live", 10, actions=("add",)),
            opt("hours", "how long the string counts", 24, actions=("add",)),
            flag("yes", "do not ask first", unsigned=True, actions=("revoke",)),
        ),
    ),
    Verb(
        "devices", "every device, as the log has them", "local", "step",
        "muster.verbs.device:listing", hidden=True,
    ),
    Verb(
        "device.terms", "what a device would be allowed, to be signed", "local", "step",
        "muster.verbs.device:terms_of", hidden=True,
    ),
    Verb(
        "device.add", "write down the terms of a device", "order", "step",
        "muster.verbs.device:add", (pos("machine", "the machine"),),
        hidden=True, object="machine", target="hub", operators_only=True,
    ),
    Verb(
        "device.offer", "the terms that a ticket is for", "local", "step",
        "muster.verbs.device:offer", hidden=True,
    ),
    Verb(
        "device.record", "bind this machine's device key", "local", "step",
        "muster.verbs.device:record", hidden=True,
    ),
    Verb(
        "device.taken", "the terms to take back of a device", "local", "step",
        "muster.verbs.device:terms_to_take", (pos("device", "the machine"),), hidden=True,
    ),
    Verb(
        "device.revoke", "take the terms of a device back", "order", "step",
        "muster.verbs.device:revoke", (pos("device", "the machine"),),
        hidden=True, object="device", target="hub", operators_only=True,
    ),
    Verb(
        "up", "run this machine's daemon", "local", "client", "muster.verbs.service:up",
        (flag("detach", "return once it answers; it goes on in the background"),),
    ),
    Verb(
        "down", "stop this machine's daemon", "local", "client", "muster.verbs.service:down",
        elsewhere=True,
    ),
    Verb(
        "stop", "end the daemon after its current step", "local", "async",
        "muster.verbs.fleet:stop", hidden=True,
    ),
    Verb(
        "status", "what this machine is doing, in one screen", "local", "step",
        "muster.verbs.status:status",
        (flag("verbose", "also ids and the counters of each part", unsigned=True),),
    ),
    Verb(
        "machines", "every machine of the fleet, and how it is", "local", "step",
        "muster.verbs.fleet:machines",
    ),
    Verb(
        "reach", "tell this machine where another one is now, when its address has changed",
        "local", "async", "muster.verbs.reach:reach",
        (
            pos("machine", "the machine that moved"),
            pos("address", "host:port under which it is reached now"),
            flag("anyway", "remember it although nobody answers there"),
        ),
    ),
    Verb(
        "doctor", "check this machine and say how to mend what is wrong", "local", "client",
        "muster.verbs.doctor:doctor",
    ),
    Verb(
        "relay", "a way to another machine, through this one", "peer", "async",
        "muster.verbs.relay:carry", hidden=True,
    ),
    Verb(
        "relay.serve", "another machine wants a link, through the one that asks", "peer", "async",
        "muster.verbs.relay:serve", hidden=True,
    ),
    Verb(
        "facts", "what this machine says about itself", "local", "step",
        "muster.verbs.fleet:facts", hidden=True,
    ),
    Verb(
        "target", "the machine that should own new work", "local", "step",
        "muster.verbs.fleet:target", hidden=True,
    ),
)  # fmt: skip
