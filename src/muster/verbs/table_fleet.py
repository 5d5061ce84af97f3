"""Verbs about machines and who may what; the rules are those of `node/verb.py`."""

from typing import Final

from muster.verbs.verb import Verb, flag, opt, pos, words

FLEET: Final = (
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
)  # fmt: skip
