"""Orders: what a person asks for, signed with the person's key.

Rule 1: a statement is signed here, in the command, where the person is; the daemon never holds
the key. So an order needs `operator.seed` in this home, or `device.seed` (a key of this machine's
own, for the verbs that an operator named), or comes from an agent that shows the capability of its
task instead.
Rule 2: an order names the machine that is to act and counts for five minutes, once.
Rule 3: nothing here is imported by a command that orders nothing, and what only a grant or a device
needs is imported for those.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from muster.errors import Denied, Malformed, NotFound
from muster.fleet.machine import Operator
from muster.fleet.statement import EVERY_MACHINE, SALT, sign_statement, veiled
from muster.limits import GRANT_DAYS_MAX
from muster.log.keys import Signer
from muster.log.stream import FleetId
from muster.node.host.home import Home
from muster.node.verb import Verb
from muster.verbs.table import VERBS

LIFE_MS: Final = 5 * 60_000
_NONCE_BYTES: Final = 16
_DAY_MS: Final = 24 * 3_600_000

Ask = Callable[[str, Mapping[str, Any]], Any]


class Target(NamedTuple):
    """The machine that is to act, as this machine's daemon names it.

    `machine` is "" where the order is for the whole fleet, and this machine takes it.
    """

    machine: str
    name: str
    fleet: FleetId
    now_ms: int


def target(ask: Ask, verb: Verb, args: dict[str, Any], on: str) -> Target:
    """Who acts: the machine named by `--on`, else by the verb's own rule.

    What is wanted of everybody is said under its full id, which `args` gets. Where its object is a
    machine they get who asks, and a pad: nobody can guess the words from the order's digest.
    """
    asked = {"verb": verb.name, "object": str(args.get(verb.object, "")), "on": on}
    found = ask("target", {name: value for name, value in asked.items() if value})
    if found["object"]:
        args[verb.object] = found["object"]
    if verb.of_machine:
        args |= {"asker": found["asker"], "pad": os.urandom(_NONCE_BYTES).hex()}
    return Target(found["machine"], found["name"], FleetId(found["fleet"]), found["now_ms"])


def sign(verb: str, args: Mapping[str, Any], to: Target, object: str) -> str:
    """The signed order. Raises: Denied where this home holds no operator's key."""
    return sign_statement(
        signer(verb),
        fleet=to.fleet,
        verb=verb,
        object=object or "*",
        target=to.machine or EVERY_MACHINE,
        args=dict(args),
        nonce=os.urandom(_NONCE_BYTES),
        issued_ms=to.now_ms,
        until_ms=to.now_ms + LIFE_MS,
    ).decode()


def signer(verb: str) -> Signer:
    """The key that orders here: the operator's, else a device's. Raises: Denied without one."""
    home = Home()
    if home.has_seed("operator.seed"):
        return Operator(home.seed("operator.seed")).statement
    if home.has_seed("device.seed"):
        return Signer(home.seed("device.seed"))
    from muster.fleet.device import NEVER  # noqa: PLC0415 - only where somebody is refused

    found, way = VERBS.get(verb), ""
    if verb not in NEVER and not (found is not None and found.operators_only):
        # The other way out, where there is one: not every verb is ever a device's.
        may = "" if found is not None and found.daily else f" and `--may {verb}`"
        way = (
            ", or let this one order with a key of its own: there, "
            f"`muster device add` with this machine's name{may}"
        )
    raise Denied(
        f"{verb} is an operator's to order, and {home.path} holds no operator.seed: do it on the "
        f"machine where `muster init` ran{way}"
    )


def object_of(verb: Verb, args: Mapping[str, Any]) -> str:
    """What a grant may name: the argument that the table says, `*` without one."""
    found = str(args.get(verb.object, "*"))[:200] if verb.object else "*"
    if salt := args.get(SALT):
        return veiled(found, str(salt))
    if not all("!" <= mark <= "~" for mark in found):
        if verb.naming:
            raise Malformed(f"{found[:60]!r} is no name: leave out spaces and accents")
        raise NotFound(f"nothing is named {found[:60]!r}: no name has spaces or accents in it")
    return found


def grant_options(ask: Ask, args: Mapping[str, Any], to: Target) -> list[dict[str, Any]]:
    """The options of each `grant` call: one to give, as many to take as grants are meant."""
    import msgspec  # noqa: PLC0415 - see rule 3

    from muster.fleet.grant import Bounds, Grant, sign_give  # noqa: PLC0415 - as above

    # The daemon says who is meant, and refuses what would have no effect, before it is signed.
    found = ask("grant.check", {n: each for n, each in args.items() if n != "days"})
    verb, object = str(args["verb"]), str(found.get("object", args.get("object", "*")))
    if args.get("take"):
        if not found["held"]:
            named = args.get("object", "*")
            raise NotFound(f"{args['to']} holds no grant of {verb} on {named}")
        return _take_all(found["held"], to)
    days = int(args.get("days", 1))
    if not 1 <= days <= GRANT_DAYS_MAX:
        raise Malformed(f"a grant lasts 1 to {GRANT_DAYS_MAX} days, not {days}")
    until_ms = to.now_ms + days * _DAY_MS
    bounds = found.get("bounds")
    given = msgspec.convert(bounds, Bounds) if bounds else None
    grant = Grant(object, found["grantee"], until_ms, verb, given)
    raw = sign_give(
        signer("grant"), to.fleet, grant, nonce=os.urandom(_NONCE_BYTES),
        issued_ms=to.now_ms,
    )  # fmt: skip
    shown = {"object": grant.object, "to": grant.to, "until_ms": until_ms, "verb": verb}
    shown |= {"bounds": bounds} if bounds else {}
    return [{"grant": shown, "statement": raw.decode()}]


def device_options(ask: Ask, args: Mapping[str, Any], to: Target) -> list[dict[str, Any]]:
    """The terms of a device, as the daemon understands them, and the statement that gives them."""
    import msgspec  # noqa: PLC0415 - see rule 3

    from muster.fleet.device import Terms, sign_terms  # noqa: PLC0415 - as above

    shown = ask("device.terms", args)["terms"]
    terms = msgspec.convert(shown, Terms)
    raw = sign_terms(
        signer("device.add"), to.fleet, terms, nonce=os.urandom(_NONCE_BYTES),
        issued_ms=to.now_ms,
    )  # fmt: skip
    return [{"terms": shown, "statement": raw.decode()}]


def device_taken(ask: Ask, args: Mapping[str, Any], to: Target) -> list[dict[str, Any]]:
    """The statements that take every term of a device back."""
    return _take_all(ask("device.taken", args)["ids"], to)


def chat_taken(ask: Ask, args: Mapping[str, Any], to: Target) -> list[dict[str, Any]]:
    """The statements that take every link of an account of a chat back."""
    return _take_all(ask("chat.taken", args)["ids"], to)


def forget_args(ask: Ask, args: dict[str, Any], to: Target) -> list[dict[str, Any]]:  # noqa: ARG001 - as of every signs
    """Let the order say which version is meant and what stays of it, as this machine knows both.

    Else whoever takes it could have that version replace what it never replaced.
    """
    try:
        found = ask("forget.check", {"version": args["version"]})
    except NotFound:
        # It is known where the order goes, and here it is not.
        return [{}]
    args |= {n: found[n] for n in ("version", "restates") if n in found} if found else {}
    return [{}]


def takeover_args(ask: Ask, args: dict[str, Any], to: Target) -> list[dict[str, Any]]:  # noqa: ARG001 - as of every signs
    """Let the order name the machine that is gone by its id: a name may be another's one day."""
    args["machine"] = ask("takeover.check", {"machine": args["machine"]})["machine"]
    return [{}]


def standin_args(ask: Ask, args: dict[str, Any], to: Target) -> list[dict[str, Any]]:  # noqa: ARG001 - as of every signs
    """Let the order name both machines by their ids, as `takeover_args`."""
    args |= ask("standin.check", dict(args))["args"]
    return [{}]


def schedule_statement(ask: Ask, args: dict[str, Any], to: Target) -> list[dict[str, Any]]:  # noqa: ARG001 - of every signs
    """The standing order beside the order to write it down: for all machines, until its end."""
    from muster.task import schedule  # noqa: PLC0415 - see rule 3

    text = str(args["text"])
    raw = sign_statement(
        signer(schedule.SET), fleet=to.fleet, verb=schedule.SET, object=str(args["name"]),
        target=EVERY_MACHINE, args=schedule.set_args(text), nonce=os.urandom(_NONCE_BYTES),
        issued_ms=to.now_ms, until_ms=schedule.until_ms(schedule.opened(text), to.now_ms),
    )  # fmt: skip
    return [{"statement": raw.decode()}]


def remember_args(ask: Ask, args: dict[str, Any], to: Target) -> list[dict[str, Any]]:  # noqa: ARG001 - of every signs
    """Let the order to write down what is private tell nobody else the key, nor let it be guessed.

    The whole fleet reads that an order was taken.
    """
    if args.get("scope") == "private":
        args[SALT] = os.urandom(_NONCE_BYTES).hex()
    return [{}]


def _take_all(ids: list[str], to: Target) -> list[dict[str, Any]]:
    from muster.fleet.grant import sign_take  # noqa: PLC0415 - see rule 3

    options = []
    for each in ids:
        nonce = os.urandom(_NONCE_BYTES)
        raw = sign_take(signer("grant"), to.fleet, each, nonce=nonce, issued_ms=to.now_ms)
        options.append({"id": each, "statement": raw.decode()})
    return options


def run_args(args: Mapping[str, Any], repo: str) -> dict[str, Any]:
    """What an operator signs for a run, exactly as `task/evidence.py` computes it again."""
    values = {}
    for each in args.get("value", ()):
        name, equals, text = str(each).partition("=")
        if not equals or not name:
            raise Malformed(f"--value {each[:60]!r} is not NAME=TEXT")
        if name in values:
            raise Malformed(f"--value names {name[:40]!r} twice; give it one value")
        values[name] = text
    return {
        "base": str(args.get("base", "")),
        "repo": str(args.get("repo") or repo),
        "spec": str(args["spec"]),
        "values": values,
    }
