"""Orders: what a person asks for, signed with the person's key.

Rule 1: a statement is signed here, in the command, where the person is; the daemon never holds
the key. So an order needs `operator.seed` in this home, or comes from an agent that shows the
capability of its task instead.
Rule 2: an order names the machine that is to act and counts for five minutes, once.
Rule 3: nothing here is imported by a command that orders nothing: signing costs 100 ms.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from muster.errors import Denied, Malformed, NotFound, Refused
from muster.fleet.grant import Grant, sign_give, sign_take
from muster.fleet.machine import Operator
from muster.fleet.statement import EVERY_MACHINE, sign_statement
from muster.node.home import Home
from muster.verbs.table import VERBS, Verb

LIFE_MS: Final = 5 * 60_000
_NONCE_BYTES: Final = 16
_DAY_MS: Final = 24 * 3_600_000
# Orders whose object is a name to be given; every other order names something that is there.
_NAMING: Final = ("invite", "thread", "repo")
# What can be granted beside the verbs of the table: pushing branches, and single tasks.
_GRANTED: Final = ("*", "push", "task")

Ask = Callable[[str, Mapping[str, Any]], Any]


class Target(NamedTuple):
    """The machine that is to act, as this machine's daemon names it.

    `machine` is "" where the order is for the whole fleet, and this machine takes it.
    """

    machine: str
    name: str
    fleet: str
    now_ms: int


def target(ask: Ask, verb: Verb, args: dict[str, Any], on: str) -> Target:
    """Who acts: the machine named by `--on`, else by the verb's own rule.

    An order to cancel what nobody can be asked about is for everybody, under its full id, which
    `args` gets.
    """
    everybody = False
    if not on and verb.acts == "owner":
        found = _owner(ask, str(args.get(verb.object, "")))
        on = str(found.get("owner", ""))
        everybody = verb.name == "cancel" and not found.get("there", True)
    if everybody:
        args[verb.object], on = found["id"], ""
    if not on and verb.acts == "here":
        on = str(ask("status", {})["machine"])
    found = ask("target", {"on": on} if on else {})
    machine = "" if everybody else found["machine"]
    return Target(machine, found["name"], found["fleet"], found["now_ms"])


def _owner(ask: Ask, what: str) -> Mapping[str, Any]:
    """Whose the task or run is that begins like this; nothing leaves it to the daemon."""
    try:
        return ask("whose", {"what": what}) if what else {}
    except (NotFound, Refused):
        return {}


def sign(verb: str, args: Mapping[str, Any], to: Target, object: str) -> str:
    """The signed order. Raises: Denied where this home holds no operator's key."""
    return sign_statement(
        operator(verb).statement,
        fleet=to.fleet,  # type: ignore[arg-type]
        verb=verb,
        object=object or "*",
        target=to.machine or EVERY_MACHINE,
        args=dict(args),
        nonce=secrets.token_bytes(_NONCE_BYTES),
        issued_ms=to.now_ms,
        until_ms=to.now_ms + LIFE_MS,
    ).decode()


def operator(verb: str) -> Operator:
    """The operator who sits here. Raises: Denied."""
    home = Home()
    try:
        return Operator.from_seed(home.seed("operator.seed"))
    except NotFound as error:
        raise Denied(
            f"{verb} is an operator's to order, and {home.path} holds no operator.seed: do it on "
            "the machine where `muster init` ran, or bring that file here (mode 0600)"
        ) from error


def object_of(verb: Verb, args: Mapping[str, Any]) -> str:
    """What a grant may name: the argument that the table says, `*` without one."""
    found = str(args.get(verb.object, "*"))[:200] if verb.object else "*"
    if not all("!" <= mark <= "~" for mark in found):
        if verb.name in _NAMING:
            raise Malformed(f"{found[:60]!r} is no name: leave out spaces and accents")
        raise NotFound(f"nothing is named {found[:60]!r}: no name has spaces or accents in it")
    return found


def capability() -> str:
    """What an agent was given for its task, "" for a person."""
    return os.environ.get("MUSTER_CAPABILITY", "")


def grant_options(ask: Ask, args: Mapping[str, Any], to: Target) -> list[dict[str, Any]]:
    """The options of each `grant` call: one to give, as many to take as grants are meant."""
    verb = str(args["verb"])
    if verb not in VERBS and verb not in _GRANTED:
        raise NotFound(f"there is no verb {verb[:40]!r} to grant; `muster --help` lists them")
    found = ask("target", {"to": str(args["to"])})
    signer, nonce = operator("grant").statement, secrets.token_bytes(_NONCE_BYTES)
    fleet: Any = to.fleet
    if not args.get("take"):
        until_ms = to.now_ms + int(args["days"]) * _DAY_MS
        grant = Grant(str(args["object"]), found["grantee"], until_ms, verb)
        raw = sign_give(signer, fleet, grant, nonce=nonce, issued_ms=to.now_ms)
        shown = {"object": grant.object, "to": grant.to, "until_ms": until_ms, "verb": verb}
        return [{"grant": shown, "statement": raw.decode()}]
    meant = (verb, str(args["object"]), found["grantee"])
    ids = [g["id"] for g in found["grants"] if (g["verb"], g["object"], g["to"]) == meant]
    if not ids:
        raise NotFound(f"{args['to']} holds no grant of {verb} on {args['object']}")
    options = []
    for each in ids:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        raw = sign_take(signer, fleet, each, nonce=nonce, issued_ms=to.now_ms)
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
