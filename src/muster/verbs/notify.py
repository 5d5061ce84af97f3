"""`muster notify`: the services by which this machine tells people what happens.

Rule 1: an address comes from standard input or a prompt that shows nothing, never from a word of
the command: it has a password in it. The command writes the file itself, and no daemon or socket
ever carries it.
Rule 2: the daemon is told that something changed; it reads the file anew for each message.
"""

import asyncio
import getpass
import sys
import warnings
from typing import Annotated, Any, Literal

from msgspec import Struct, field

from muster.errors import Broken, Malformed, MusterError, NotFound
from muster.fleet.escalation import As
from muster.node.host.notify_store import URL_CHARS_MAX, Kept, NotifyStore, check, used_as
from muster.node.host.secret_value import leave_no_core
from muster.node.services.notifier import deliver, is_unknown
from muster.node.services.pager import Paged, Pager
from muster.node.verb import Column, Line, Loss
from muster.verbs.client import Finding
from muster.verbs.declaration import Context, Daemon, Perform, Request, data, opt, pos, verb

_TEXT = "A test of `muster notify test` on {name}.\nNothing is wrong: this is how you are told."


class Action(Request, frozen=True):
    action: Annotated[
        Literal["add", "list", "remove", "test"],
        pos("add NAME reads an address; list; remove NAME; test sends to one or to all"),
    ]
    name: Annotated[
        str, pos("a name such as phone", actions=("add", "remove", "test"),
                 needed=("add", "remove"))
    ] = ""  # fmt: skip
    used_as: Annotated[
        Literal["", "chat", "push", "mail", "next"],
        opt("when it is told: chat first of warnings, push of what is critical, mail 5 minutes "
            "later, next (another person) 15; else as its address says", actions=("add",)),
    ] = field(default="", name="as")  # fmt: skip
    place: Annotated[
        Literal["", "keychain", "file"],
        opt("where the address is kept: a file in the home, or the keychain", actions=("add",)),
    ] = field(default="", name="in")


class Reached(Struct, frozen=True, kw_only=True):
    """A service without its address. `state` is `ready` or `failed`, of a test `sent` or `failed`;
    `reason` is why it took no message last, "" where it did.
    """

    state: str
    name: str
    used_as: As = field(name="as")
    place: str
    reason: str = ""


class Done(Struct, frozen=True, kw_only=True):
    """What was done: `did` is `added` or `removed`."""

    name: str
    did: str
    used_as: str = field(default="", name="as")


@verb(
    "notify", names="name", auth="local", runs="client", group="The fleet",
    columns=(
        Column("state", form="state"), Column("name", form="bold"), Column("as"),
        Column("place", "in", rank=1), Column("reason", "why not", least=20),
    ),
    nothing="This machine tells nobody what happens: `muster notify add NAME` changes that.",
    says=(
        Line("{name} is told ({as}): `muster notify test {name}` tries it.", "did=added"),
        Line("{name} is told nothing any more.", "did=removed"),
    ),
    destroys=(Loss("the address of {name} would be gone", when="action=remove"),),
)  # fmt: skip
def notify(context: Context, ask: Action) -> Any:
    """Have people told what happens, by the services that they use already.

    Addresses are those of Apprise: mailto://user:password@host?to=me@host, ntfy://topic,
    slack://…, and some hundred others. `config.toml` says which machines tell, and when not.

        muster notify add phone    # asks for the address, or reads standard input
        muster notify add team --as chat
        muster notify test
        muster notify list
        muster notify remove team --yes
    """
    home = context.home
    home.require()
    store, name = NotifyStore(home.path), ask.name
    if ask.action == "list":
        broken = _asked(context, "notify.look", {}).get("broken", {})
        known = store.known().service.items()
        return [
            _reached(each, kept, "failed" if each in broken else "ready", broken.get(each, ""))
            for each, kept in known
        ]
    if ask.action == "test":
        return _test(context, store, name)
    if ask.action == "remove":
        store.remove(name)
        done = Done(name=name, did="removed")
    else:
        leave_no_core()
        url = _address(name)
        check(name, url)
        if asyncio.run(is_unknown(url)):
            raise Malformed(
                "Apprise cannot read this address: it begins as that of no service it knows (a web "
                "page is none), or a part of it is missing; it writes them as mailto://…, "
                "ntfy://topic, slack://…"
            )
        kind = ask.used_as or used_as(url)
        store.add(name, url, kind, in_keychain=ask.place == "keychain")
        done = Done(name=name, did="added", used_as=kind)
    _asked(context, "notify.look", {"anew": True})
    return done


def _reached(name: str, kept: Kept, state: str, reason: str) -> Reached:
    return Reached(state=state, name=name, used_as=kept.used_as, place=kept.place, reason=reason)


def _test(context: Context, store: NotifyStore, name: str) -> Any:
    services = [each.name for each in store.services() if name in ("", each.name)]
    if not services:
        what = f"no service {name[:80]!r}" if name else "no service"
        raise NotFound(f"there is {what} here: `muster notify add NAME` makes one")

    async def all_of_them() -> list[str]:
        text = _TEXT.format(name=context.home.config().name or "this machine")
        work = (deliver(context.home.path, each, "Muster: a test", text) for each in services)
        return list(await asyncio.gather(*work))

    reasons = asyncio.run(all_of_them())
    known = store.known().service
    tried = [
        _reached(each, known[each], "failed" if why else "sent", why)
        for each, why in zip(services, reasons, strict=True)
        if each in known
    ]
    _asked(context, "notify.look", {"tried": dict(zip(services, reasons, strict=True))})
    return Finding(tried, 1) if any(reasons) else tried


def _address(name: str) -> str:
    """The address that a person gives. Raises: Malformed, Broken."""
    if not sys.stdin.isatty():
        raw = sys.stdin.buffer.read(4 * URL_CHARS_MAX + 1)
        try:
            return raw.decode().strip()
        except UnicodeDecodeError:
            raise Malformed("the address is no text in UTF-8") from None
    with warnings.catch_warnings():
        # Where the terminal would show what is typed, nothing is asked.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(f"address of {name}: ").strip()
        except getpass.GetPassWarning as error:
            raise Broken(
                "this terminal cannot hide what is typed: give the address on standard input"
            ) from error
        except EOFError as error:
            raise Malformed("no address was given") from error


def _asked(context: Context, name: str, args: dict[str, Any]) -> dict[str, Any]:
    """What a daemon that runs says; {} without one, and it reads the file when it begins."""
    if not context.running():
        return {}
    try:
        found: dict[str, Any] = context.ask(name, args)
    except MusterError:
        # An older daemon; or it ends just now.
        return {}
    return found


class Look(Request, frozen=True):
    anew: Annotated[bool, data()] = False
    tried: Annotated[dict[str, str], data()] = field(default_factory=dict)


class Seen(Struct, frozen=True):
    """Which services took no message last, and why."""

    broken: dict[str, str]


@verb("notify.look", auth="local", runs="async", on="none")
async def look(daemon: Daemon, call: Perform, ask: Look) -> Seen:
    """Which services fail; the daemon looks at the list of them anew, and hears what was tried."""
    if ask.anew:
        daemon.notifier.tell_services()
    known = {each.name for each in daemon.core.part(Pager).services}
    tried = {name: why[:300] for name, why in ask.tried.items() if name in known}
    if tried:
        daemon.post(Paged(0, tuple(tried.items())))
    return Seen({**daemon.core.part(Pager).broken, **{n: w for n, w in tried.items() if w}})
