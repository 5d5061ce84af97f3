"""Starting a fleet, and joining one: what turns a folder into a machine.

Rule 1: everything is checked before anything is written, and the machine's seed is put in place
last: a home without `seed` is no machine yet, and the same command can be given again.
Rule 2: a seed is never written twice. A join whose answer was lost goes on with the same seed, for
which the hub answers again; a join that was refused leaves nothing behind.
Rule 3: the newcomer trusts the invitation alone: the hub must prove itself against the fleet's id
in it before the token is sent.
"""

import asyncio
import contextlib
import getpass
import os
import re
import secrets
import shutil
import socket
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Struct

from muster.address import AUTO
from muster.channel import FIRST, http
from muster.channel.frame import Type, decode, encode
from muster.channel.knock import knock_name
from muster.channel.listening import auto_port
from muster.errors import (
    Broken,
    Conflict,
    Forged,
    Malformed,
    MusterError,
    NotFound,
    Refused,
    Unreachable,
)
from muster.fleet import certificate
from muster.fleet.invite import Invite, pasted, read_invite
from muster.fleet.join import Welcome, open_answer, sign_join
from muster.fleet.machine import Authority, Identity, Operator
from muster.fleet.name import RESERVED_NAMES, check_name
from muster.fleet.record import open_record, sign_binding, sign_operator, sign_record
from muster.limits import CALL_BYTES_MAX
from muster.log import canon
from muster.node.host import clock
from muster.node.host.config import Config, config_text
from muster.node.host.exposure import reached_at
from muster.node.host.facts import TOOLS
from muster.node.host.home import JOINING, SEED_BYTES, Home
from muster.node.host.sandbox_config import SandboxConfig
from muster.node.host.service import BY_HAND, manager_of
from muster.task.openings import OFF, ON
from muster.task.spec import check_nameable
from muster.verbs import agent as agents
from muster.verbs import sandbox_checks
from muster.verbs.client import Finding
from muster.verbs.daemon import begin
from muster.verbs.declaration import Context, Request, Words, opt, pos, verb
from muster.verbs.service import install

ANSWER_S: Final = 30.0
_NAME: Final = "The machine's name (--name)"
_YES: Final = ("y", "yes")
_LISTEN: Final = "host:port where this machine listens for others"


Address = Annotated[str, opt("host:port under which others reach it (default: from --listen)")]
Service = Annotated[bool, opt("run the daemon as a service of this system from now on")]
Up = Annotated[bool, opt("start the daemon, until the next reboot")]
Started = Literal["", "service", "up"]
NoSandbox = Annotated[
    bool, opt("let work that asks for no sandbox run without one on this machine")
]
Labels = Annotated[Words, opt("a label for `needs: label`; give it several times")]


class Init(Request, frozen=True):
    name: Annotated[str, opt("this machine's name (default: its host name)")] = ""
    operator: Annotated[
        str, opt("your name, as it will stand in the log (default: your login)")
    ] = ""
    listen: Annotated[str, opt(f"{_LISTEN}; auto: where no stranger is", empty=True)] = AUTO
    address: Address = ""
    label: Labels = ()
    service: Service = False
    up: Up = False
    no_sandbox: NoSandbox = msgspec.field(default=False, name="no-sandbox")
    next: Annotated[
        str, opt("the next machine's name, whose invitation is printed where the daemon is started")
    ] = "build"


class Begun(Struct, frozen=True, kw_only=True):
    """What was made; `agents` that were found, each with its login as facts say it, `tools` too;
    `silent` agents are there and do not answer; `sandbox` as facts say it.

    `started` says what runs the daemon; `next` is the machine to join then, by `invitation` where
    a daemon runs that can give one.
    """

    name: str
    machine: str
    fleet: str
    operator: str
    home: str
    listen: str
    address: str
    agents: dict[str, str]
    tools: list[str]
    silent: list[str] = []
    started: Started = ""
    next: str = ""
    invitation: str = ""
    sandbox: str = ""


@verb("init", auth="local", runs="client", group="The fleet")
def init(context: Context, ask: Init) -> Begun | Finding:
    """Start a fleet on this machine.

    One machine, with its authority and its first operator in this home. On a terminal and without
    options it asks for the machine's name, and whether the daemon is to run as a service.

        muster init
        muster init --service --next laptop
        muster init --name studio --operator alice --address studio.local:7447
        muster init --name studio --listen ''    # open no port, only dial
    """
    home = context.home
    home.check_vacant()
    asks, default = ask == Init(), _made_valid(socket.gethostname(), "machine")
    said = context.question("This machine's name", default) if asks else ask.name or default
    name = _checked(said, _NAME)
    person = _person(ask.operator, name)
    other = _next(ask.next, name, person)
    options = _options(ask)
    address = reached_at(options)
    how = _how_to_start(context, ask, asks=asks)
    home.create()
    authority = Authority(_kept_seed(home, "authority.seed"))
    operator = Operator(_kept_seed(home, "operator.seed"))
    seed = _kept_seed(home, JOINING)
    identity, now_ms = Identity(seed), clock.read().wall_ms
    binding = sign_binding(identity, authority.fleet, name)
    raw = sign_record(authority, binding, roles=("hub", "workstation"), serial=1, issued_ms=now_ms)
    certificates = certificate.issue(authority, open_record(raw, authority.fleet), now_ms)
    enclosed = _sandbox(ask)
    _become(
        home,
        Config(name, "hub", ask.label, channel={FIRST: options}, sandbox=enclosed),
        {
            "fleet": authority.fleet,
            "record": raw.decode(),
            "operators": [sign_operator(authority, operator.key, person, now_ms).decode()],
            "machines": [],
            "ca": certificates.ca_pem.decode(),
            "certificate": certificates.tls_pem.decode(),
            "address": _found_out(options, address),
            "listen": ask.listen,
            "dial": {},
        },
    )
    found, silent = _agents(context)
    begun = Begun(
        name=name,
        machine=identity.machine,
        fleet=authority.fleet,
        operator=person,
        home=str(home.path),
        listen=ask.listen,
        address=address,
        agents=found,
        silent=silent,
        tools=[name for name, argv in TOOLS.items() if shutil.which(argv[0])],
        sandbox=sandbox_checks.fact(enclosed),
    )
    if (failed := _start(context, how)) is not None:
        return Finding(begun, failed)
    begun = msgspec.structs.replace(begun, started=how, next=other)
    if not (how and address):
        return begun
    try:
        invitation = context.ask("invite", {"name": other})["invitation"]
    except MusterError as error:
        context.say(f"the machine is made and its daemon runs, and nobody is invited yet: {error}")
        return Finding(begun, error.exit_code)
    return msgspec.structs.replace(begun, invitation=invitation)


class Join(Request, frozen=True):
    invitation: Annotated[str, pos("muster1.…")]
    name: Annotated[str, opt("this machine's name (default: the one it was invited under)")] = ""
    listen: Annotated[str, opt(f"{_LISTEN}; empty: it only dials", empty=True)] = ""
    address: Address = ""
    label: Labels = ()
    service: Service = False
    up: Up = False
    no_sandbox: NoSandbox = msgspec.field(default=False, name="no-sandbox")


class Joined(Struct, frozen=True):
    name: str
    machine: str
    fleet: str
    hub: str
    roles: tuple[str, ...]
    home: str
    listen: str
    started: Started = ""
    sandbox: str = ""


@verb("join", auth="local", runs="client", group="The fleet")
def join(context: Context, ask: Join) -> Joined | Finding:
    """Make this machine a member, with the string that `invite` printed.

    On a terminal and without options it asks whether the daemon is to run as a service.

        muster join 'muster1.….studio.local:7447#build' --label tests
    """
    home = context.home
    home.check_vacant()
    text, _, invited = pasted(ask.invitation).partition("#")
    invite = read_invite(text)
    said = ask.name or invited or _made_valid(socket.gethostname(), "machine")
    name = check_name(said, _NAME)
    # Before the invitation is spent: what is wrong here is not found out behind it.
    how = _how_to_start(context, ask, asks=ask == Join(invitation=ask.invitation))
    options = _options(ask, hub=invite.address)
    address = reached_at(options)
    was_there, fresh = home.path.exists(), not home.has_seed(JOINING)
    home.create()
    seed = _kept_seed(home, JOINING)
    identity = Identity(seed)
    context.say(f"asking {invite.address} to take {name} in")
    try:
        welcome = asyncio.run(_ask_in(identity, invite, name))
    except _Unanswered:
        # The hub may have taken us in before its answer was lost: the seed stays.
        raise
    except MusterError as error:
        if fresh or not isinstance(error, Unreachable):
            (home.path / JOINING).unlink(missing_ok=True)
            # Somebody may have put something there meanwhile: it is theirs.
            with contextlib.suppress(OSError):
                if not was_there:
                    (home.path / "run").rmdir()
                    home.path.rmdir()
        raise _with_next_step(error, invite) from error
    role = welcome.record.roles[0] if welcome.record.roles else "workstation"
    enclosed = _sandbox(ask)
    _become(
        home,
        Config(name, role, ask.label, channel={FIRST: options}, sandbox=enclosed),
        {
            "fleet": invite.fleet,
            "record": welcome.answer.record,
            "operators": list(welcome.answer.operators),
            "machines": [welcome.answer.hub],
            "ca": welcome.answer.ca_pem,
            "certificate": welcome.answer.tls_pem,
            "address": _found_out(options, address) if ask.listen else "",
            "listen": ask.listen,
            # The address that just worked from here, not what the hub believes of itself.
            "dial": {welcome.hub.machine: invite.address},
        },
    )
    joined = Joined(
        name,
        identity.machine,
        invite.fleet,
        welcome.hub.name,
        welcome.record.roles,
        str(home.path),
        ask.listen,
        sandbox=sandbox_checks.fact(enclosed),
    )
    if (failed := _start(context, how)) is not None:
        return Finding(joined, failed)
    return msgspec.structs.replace(joined, started=how)


def _sandbox(ask: Init | Join) -> SandboxConfig:
    return SandboxConfig(default=OFF if ask.no_sandbox else ON)


def _with_next_step(error: MusterError, invite: Invite) -> MusterError:
    """Why nobody took us in, and what to do. No token was spent."""
    said = str(error).removesuffix("; try later").removesuffix(".")
    if isinstance(error, Unreachable):
        return Unreachable(
            f"{said}: see that the hub is up and reached under this address from here, then give "
            "the same command again; `muster invite NAME --address HOST:PORT` names another address"
        )
    if isinstance(error, Forged):
        return Forged(
            f"{invite.address} is not the fleet that invited ({said}); nothing was shown to it: "
            "ask for an invitation with the address of the right one"
        )
    return error


# --- asking the hub --------------------------------------------------------------------------


class _Unanswered(Unreachable):
    """The request was sent, and whether it was obeyed is not known."""


async def _ask_in(identity: Identity, invite: Invite, name: str) -> Welcome:
    """One link, one call. Raises: Unreachable, or what the hub or the checks refuse."""
    link = await http.join(
        invite.address,
        lambda der: certificate.hub_of(der, invite.fleet).machine,
        name=knock_name(invite.fleet, "", clock.read().wall_ms),
    )
    try:
        request = sign_join(identity, invite, name)
        call = canon.encode({"args": {"request": request.decode()}, "verb": "enrol"})
        async with asyncio.timeout(ANSWER_S):
            await link.send(encode(Type.CALL, 1, call))
            answer = await _answer(link)
    except (TimeoutError, Unreachable) as error:
        raise _Unanswered(
            f"{invite.address} took the request but did not answer ({error or 'it is silent'}); "
            "give the same command again"
        ) from error
    finally:
        await link.close("enrolled")
    return open_answer(answer.encode(), identity, invite.fleet)


async def _answer(link: Any) -> str:
    raw = b""
    while len(raw) <= CALL_BYTES_MAX:
        frame = decode(await link.receive())
        if frame.type is not Type.REPLY or frame.channel != 1:
            continue
        raw += frame.payload[1:]
        if frame.payload[:1] == b".":
            break
    answer: Any = msgspec.json.decode(raw)
    if answer.get("ok"):
        return str(answer["value"])
    error = answer.get("error", {})
    said = str(error.get("text", "it gave no reason"))[:500]
    kinds: dict[str, type[MusterError]] = {"Conflict": Conflict, "Broken": Broken}
    raise kinds.get(str(error.get("kind")), Refused)(f"the hub refused: {said}")


# --- what a machine is called and where it listens ----------------------------------------------


def _made_valid(text: str, instead: str) -> str:
    """The nearest name to what the system calls something, `instead` where none is near."""
    first = text.partition(".")[0].lower()
    near = re.sub(r"[^a-z0-9]+", "-", first).strip("-")[:40].rstrip("-")
    return instead if near in ("", *RESERVED_NAMES) else near


def _checked(name: str, what: str) -> str:
    """A name that people and specs can say. Raises: Malformed."""
    check_nameable(check_name(name, what), what)
    return name


def _person(asked: str, machine: str) -> str:
    """The operator's name. Machines and operators have one space of names. Raises: Malformed."""
    if asked == machine:
        raise Malformed(
            f"the machine and its operator cannot both be called {machine}: take another --name or "
            "--operator"
        )
    try:
        login = _made_valid(getpass.getuser(), "owner")
    except (KeyError, OSError):
        # A container's user without a name.
        login = f"uid{os.getuid()}"
    default = next(each for each in (login, "owner", "operator") if each != machine)
    return check_name(asked or default, "The operator's name (--operator)")


def _next(asked: str, *taken: str) -> str:
    """The name of the next machine. Raises: Malformed."""
    _checked(asked, "The next machine's name (--next)")
    # A second machine of one name would be refused when it joins.
    if asked in taken and asked != Init().next:
        raise Malformed(
            f"{asked} is this machine or its operator: give the next one another --next"
        )
    return next(each for each in (asked, "laptop", "build") if each not in taken)


def _options(ask: Init | Join, hub: str = "") -> http.Options:
    """Where a machine listens and is reached, as a person named it. Raises: Malformed.

    It stays theirs to change, in config.toml; so do the labels, which are checked as well.
    """
    options = http.Options(ask.listen, ask.address.lower(), hub)
    if ask.listen:
        options.check_listen(ask.listen)
    for label in ask.label:
        check_nameable(label, "The label")
    return options


def _found_out(options: http.Options, address: str) -> str:
    """What is remembered of where others reach this machine; of what changes by itself, nothing."""
    at = options.listens_at
    return "" if at and not options.address and auto_port(at) is not None else address


# --- what runs it ---------------------------------------------------------------------------------


def _how_to_start(context: Context, ask: Init | Join, *, asks: bool) -> Started:
    """What is to run the daemon, as the options or a person say. Raises: NotFound, Malformed.

    What cannot run it is refused here, before a home is written or an invitation spent.
    """
    if ask.service and ask.up:
        raise Malformed("--service starts the daemon as well: give it alone")
    if ask.up:
        return "up"
    if not (ask.service or asks):
        return ""
    try:
        manager = manager_of(context.home)
        if ask.service:
            # Nothing of the system is changed before somebody said so; `install` does it as well.
            manager.prepare()
        manager.check()
    except (NotFound, Refused, Unreachable) as error:
        if ask.service:
            # Nothing is made, so the daemon that could be started by hand is not there either.
            instead = "with --up instead of --service the daemon runs until the next reboot"
            raise type(error)(str(error).replace(BY_HAND, instead)) from error
        started = context.question("Start the daemon now? y/n", "n")
        return "up" if started.lower() in _YES else ""
    if ask.service:
        return "service"
    wanted = context.question("Run the daemon as a service, now and after each reboot? y/n", "n")
    return "service" if wanted.lower() in _YES else ""


def _start(context: Context, how: Started) -> int | None:
    """Start the daemon of a machine that is made; the exit code where that failed."""
    try:
        if how == "service":
            install(context)
        elif how:
            begin(context)
    except MusterError as error:
        context.say(f"the machine is made, and its daemon does not run: {error}")
        return error.exit_code
    return None


def _agents(context: Context) -> tuple[dict[str, str], list[str]]:
    """The agents that are found here, and whether they look logged in; "" where nobody can tell.
    And those that do not answer.
    """
    there = [e for e in agents.here(context.home, context.note) if e.state != agents.ABSENT]
    silent = [each.agent for each in there if each.state == agents.SILENT]
    return {each.agent: each.login for each in there if each.agent not in silent}, silent


# --- the home -------------------------------------------------------------------------------------


def _kept_seed(home: Home, name: str) -> bytes:
    """The seed of this name; the one of an earlier try that was cut short counts."""
    if not home.has_seed(name):
        home.put_seed(name, secrets.token_bytes(SEED_BYTES))
    return home.seed(name)


def _become(home: Home, config: Config, facts: dict[str, Any]) -> None:
    """Write down what the machine is; with the last step a machine lives in this home."""
    home.put("config.toml", config_text(config))
    home.put_facts(facts)
    (home.path / JOINING).rename(home.path / "seed")
    handle = os.open(home.path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
