"""`muster secret`: the secrets of this machine, and which attempts get them.

Rule 1: a value comes from standard input, a prompt that shows nothing, or a file; never from a word
of the command, which every user of the machine can read. It goes into its place and nowhere else:
the command writes the store itself, and no daemon, socket or answer ever carries it.
Rule 2: the daemon reads the store anew for each attempt. It is told that something changed, so that
the fleet hears which grants are here; without one it says so when it starts.
"""

import asyncio
import getpass
import os
import sys
import warnings
from typing import Annotated, Any, Final, Literal

from msgspec import Struct, field

from muster.duration import duration_of
from muster.errors import Broken, Conflict, Malformed, MusterError, NotFound, unable
from muster.node.host import clock
from muster.node.host.secret_index import Kept, Place
from muster.node.host.secret_store import SecretStore
from muster.node.host.secret_value import VALUE_BYTES_MAX, leave_no_core, plain
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.verb import Column, Line, Loss
from muster.task.secret import Grant, check_name
from muster.verbs.declaration import Context, Daemon, Perform, Request, data, opt, pos, verb
from muster.verbs.task import moment

_NAMED: Final = ("set", "remove", "grant", "revoke")
_OF_GRANT: Final = ("grant", "revoke")


class Action(Request, frozen=True):
    action: Annotated[
        Literal["set", "list", "remove", "grant", "revoke"],
        pos("set NAME reads a value; list; remove NAME; grant NAME to attempts; revoke it"),
    ]
    name: Annotated[
        str, pos("a name such as DEPLOY_TOKEN", kind="secret", actions=_NAMED, needed=_NAMED)
    ] = ""
    from_file: Annotated[str, opt("take the value from a file", kind="place", actions=("set",))] = (
        field(default="", name="from-file")
    )
    place: Annotated[
        Literal["", "keychain", "file"],
        opt("where it is kept: the keychain of this system, if there is one, or a file in the home",
            actions=("set",)),
    ] = field(default="", name="in")  # fmt: skip
    agent: Annotated[
        str, opt("attempts of which agent, * for any letters", kind="agent", actions=_OF_GRANT)
    ] = ""
    spec: Annotated[str, opt("of which spec, by its name; * as above", actions=_OF_GRANT)] = ""
    phase: Annotated[str, opt("of which phase; * as above", actions=_OF_GRANT)] = ""
    until: Annotated[
        str, opt("when the grant ends: 8h, 30d or 2026-12-31T18:00", actions=("grant",))
    ] = ""


class Secret(Struct, frozen=True, kw_only=True):
    """A secret of this machine, without its value.

    `place` is `keychain`, `credential` or `file`; `granted` are agent/spec/phase of the attempts
    that get it, and `over` those whose grant has ended. `reason` says why no attempt could get it.
    """

    name: str
    place: str
    set_ms: int
    granted: list[str]
    over: list[str]
    reason: str = ""


class Done(Struct, frozen=True, kw_only=True):
    """What was done: `did` is `set`, `removed`, `granted` or `revoked`; `attempts` are those that a
    grant names. `counts` says whether a daemon knows it already; `reason`, why it cannot read it.
    """

    name: str
    did: str
    place: str = ""
    attempts: list[str] = []
    until_ms: int = 0
    counts: bool = False
    reason: str = ""


@verb(
    "secret", names="name", auth="local", runs="client", group="Work", rows="secrets",
    columns=(
        Column("name", form="bold"), Column("place", "in"),
        Column("set_ms", "set", "ago", when="set_ms"),
        Column("granted", "granted to", "words", least=16),
        Column("over", "ended", "words", rank=1), Column("reason", rank=1, width=80),
    ),
    nothing="This machine has no secrets: `muster secret set NAME` keeps one.",
    says=(
        Line("{name} is kept in the keychain.", "did=set place=keychain"),
        Line("{name} is kept in a file of this home that nobody else can read.",
             "did=set place=file"),
        Line("No attempt gets it before it is granted: `muster secret grant {name} --agent A "
             "--spec S --phase P`.", "did=set !attempts"),
        Line("{name} and all that was granted of it are gone.", "did=removed"),
        Line("Attempts that get {name} from now on: {attempts:words}.", "did=granted"),
        Line("That ends {until_ms:ago}.", "did=granted until_ms"),
        Line("Attempts that get {name} no more: {attempts:words}.", "did=revoked"),
        Line("The daemon cannot read it: {reason}", "reason"),
    ),
    destroys=(
        Loss("the secret {name} would be gone, and all that was granted of it",
             when="action=remove"),
    ),
)  # fmt: skip
def secret(context: Context, ask: Action) -> Any:
    """Keep the secrets of this machine, and say which attempts get them.

    A phase names what it wants (`secrets: [DEPLOY_TOKEN]`). It becomes a variable of the attempts
    that were granted it here, and of no other; no value is ever shown.

        muster secret set DEPLOY_TOKEN    # asks for the value, or reads standard input
        muster secret set DEPLOY_KEY --from-file ~/.ssh/deploy
        muster secret grant DEPLOY_TOKEN --agent shell --spec release --phase publish --until 30d
        muster secret list
        muster secret revoke DEPLOY_TOKEN
        muster secret remove DEPLOY_KEY --yes
    """
    home = context.home
    home.require()
    store, now_ms = SecretStore(home.path, os.environ), clock.read().wall_ms
    if ask.action == "list":
        return {"secrets": _rows(context, store, now_ms)}
    name = ask.name if ask.action in ("remove", "revoke") else check_name(ask.name)
    if ask.action == "set":
        if name in _looked(context, "").get("credentials", ()):
            raise Conflict(f"{name} is a credential of systemd: change it in the daemon's unit")
        leave_no_core()
        value = _value(ask.from_file, name)
        place = store.put(name, value, now_ms, ask.place or None)
        granted = [each.attempts for each in store.known()[name].grants]
        done = Done(name=name, did="set", place=place, attempts=granted)
    elif ask.action == "remove":
        done = Done(name=name, did="removed", place=store.remove(name))
    elif ask.action == "grant":
        grant = _grant(ask, now_ms)
        found = _looked(context, "").get("credentials", ())
        kept = store.grant(name, grant, is_credential=name in found)
        attempts = [grant.attempts]
        done = Done(name=name, did="granted", place=kept.place, attempts=attempts,
                    until_ms=grant.until_ms)  # fmt: skip
    else:
        gone = store.revoke(name, lambda grant: _is_meant(ask, grant))
        done = Done(name=name, did="revoked", attempts=[grant.attempts for grant in gone])
    told = _looked(context, name if done.did in ("set", "granted") else "", anew=True)
    reason = str(told.get("reason", ""))
    return Done(**{**_fields(done), "counts": bool(told), "reason": reason})


def _fields(done: Done) -> dict[str, Any]:
    return {name: getattr(done, name) for name in done.__struct_fields__}


def _rows(context: Context, store: SecretStore, now_ms: int) -> list[Secret]:
    known, looked = store.known(), _looked(context, "")
    for name in looked.get("credentials", ()):
        known.setdefault(name, Kept("credential"))
    return [
        Secret(
            name=name,
            place=kept.place,
            set_ms=kept.set_ms,
            granted=[each.attempts for each in kept.grants if not each.is_over(now_ms)],
            over=[each.attempts for each in kept.grants if each.is_over(now_ms)],
            reason=str(looked.get("reasons", {}).get(name, "")),
        )
        for name, kept in sorted(known.items())
    ]


def _grant(ask: Action, now_ms: int) -> Grant:
    """Raises: Malformed."""
    for each in ("agent", "spec", "phase"):
        if not getattr(ask, each):
            raise Malformed(f"say of which {each}: --{each} NAME, or --{each} '*' for any")
    until_ms = 0
    if ask.until:
        span_ms = duration_of(ask.until)
        until_ms = moment(ask.until, now_ms) if span_ms is None else now_ms + span_ms
        if until_ms <= now_ms:
            raise Malformed(f"--until {ask.until[:40]!r} is over already")
    return Grant(ask.agent, ask.spec, ask.phase, now_ms, until_ms)


def _is_meant(ask: Action, grant: Grant) -> bool:
    """Whether it is the grant of these words; those that were left out may be any."""
    said = {each: getattr(ask, each) for each in ("agent", "spec", "phase")}
    return all(getattr(grant, name) == word for name, word in said.items() if word)


def _value(path: str, name: str) -> str:
    """The value that a person gives. Raises: Malformed, NotFound, Broken."""
    if path:
        try:
            with open(os.path.expanduser(path), "rb") as file:
                return plain(file.read(VALUE_BYTES_MAX + 1))
        except FileNotFoundError as error:
            raise NotFound(f"there is no file {path}") from error
        except OSError as error:
            raise unable(f"{path} cannot be read ({error.strerror})", error) from error
    if not sys.stdin.isatty():
        return plain(sys.stdin.buffer.read(VALUE_BYTES_MAX + 1))
    with warnings.catch_warnings():
        # Where the terminal would show what is typed, nothing is asked.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return plain(getpass.getpass(f"{name}: ").encode())
        except getpass.GetPassWarning as error:
            raise Broken(
                "this terminal cannot hide what is typed: give the value on standard input, or "
                "with --from-file"
            ) from error
        except EOFError as error:
            raise Malformed("no value was given") from error


# --- the daemon's side ---------------------------------------------------------------------------


def _looked(context: Context, name: str, *, anew: bool = False) -> dict[str, Any]:
    """What a daemon that runs sees of the secrets here; {} without one."""
    if not context.running():
        return {}
    try:
        found: dict[str, Any] = context.ask("secret.look", {"name": name, "anew": anew})
    except MusterError:
        # An older daemon; or it ends just now, and reads the store when it begins.
        return {}
    return found


class Look(Request, frozen=True):
    name: Annotated[str, data()] = ""
    anew: Annotated[bool, data()] = False


class Seen(Struct, frozen=True):
    """What the daemon sees: the names of credentials, and why a secret cannot be read by it."""

    credentials: list[str]
    reasons: dict[str, str]
    reason: str = ""


@verb("secret.look", auth="local", runs="async", on="none")
async def look(daemon: Daemon, call: Perform, ask: Look) -> Seen:
    """Which secrets this machine's daemon can read; the fleet hears of grants that changed."""
    store = SecretStore(daemon.home.path, daemon.effects.environ)
    found = await asyncio.to_thread(_seen, store, ask.name)
    if ask.anew:
        daemon.post(FactsChanged(await daemon.effects.facts()))
    return found


def _seen(store: SecretStore, name: str) -> Seen:
    known = store.known()
    # A keychain may ask its person: it is asked for what was named alone.
    wanted: dict[str, Place] = {
        each: kept.place for each, kept in known.items() if name == each or kept.place != "keychain"
    }
    reasons = {each: store.lack(each, place) for each, place in wanted.items()}
    reasons = {each: why for each, why in reasons.items() if why}
    return Seen(list(store.credentials()), reasons, reasons.get(name, ""))
