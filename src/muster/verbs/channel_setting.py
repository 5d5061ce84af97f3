"""`muster channel`: what config.toml of this machine says of a channel, said by a command.

Rule 1: what cannot work is refused before anything is written: what is not installed, a setting
that there is not, a place that is none. The rest of the file stays as its owner wrote it.
Rule 2: a daemon reads its settings when it starts. Whoever wants them now says so.
"""

import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Struct

from muster.channel import CHANNELS, FIRST, Spec, cloud
from muster.channel.base import LinkOptions
from muster.errors import Broken, Malformed, MusterError, NotFound, Refused, unable
from muster.fleet.name import check_name
from muster.node.host import environment
from muster.node.host.config import NatsServe, read_config, with_setting, without_settings
from muster.node.host.home import Home
from muster.node.host.reach import check_config
from muster.node.verb import Column, Line
from muster.task.problem import nearest
from muster.verbs.daemon import begin, end
from muster.verbs.declaration import Context, Request, Words, opt, pos, verb

_KEYS_BYTES_MAX: Final = 4096
# What else config.toml says of the same: a table of its own, by channel.
_BESIDE: Final[dict[str, type[Struct]]] = {"nats": NatsServe}


class Setting(Request, frozen=True):
    channel: Annotated[str, pos("http, nats, ssh, drop, git or cloud")] = ""
    place: Annotated[
        str,
        pos("where the machines meet: a folder, a bucket, a repository, a NATS server; for ssh and "
            "http MACHINE=ADDRESS"),
    ] = ""  # fmt: skip
    set: Annotated[Words, opt("another setting of it, NAME=VALUE; give it several times")] = ()
    keys: Annotated[
        str, opt("for cloud: a file with the two lines of its keys, or - for standard input")
    ] = ""
    off: Annotated[bool, opt("take away all that config.toml says of it")] = False
    restart: Annotated[bool, opt("start the daemon anew, so that it counts now")] = False


class Configured(Struct, frozen=True):
    """One channel: `state` is `on`, `off` or `missing` (what it stands on is not installed)."""

    channel: str
    state: str
    says: str
    reason: str


class Changed(Struct, frozen=True):
    """What config.toml says of a channel now, and whether a daemon counts with it already.

    `counts` is `now`, `later` (a daemon runs that began before) or `next` (none runs); "" where
    nothing was changed.
    """

    channel: str
    did: str
    says: str
    counts: str


@verb(
    "channel", auth="local", runs="client", group="The fleet", on="none",
    columns=(
        Column("channel", form="bold"), Column("state", form="state"), Column("says", width=80),
        Column("reason", rank=1, width=80),
    ),
    says=(
        Line("config.toml says of {channel}: {says}", "did=set"),
        Line("config.toml says nothing of {channel} any more.", "did=off"),
        Line("The daemon has begun anew with it; `muster channels` shows how it is.", "counts=now"),
        Line("The daemon that runs began before: `muster channel --restart` begins it anew.",
             "counts=later"),
        Line("It counts from `muster up` on.", "counts=next"),
    ),
)  # fmt: skip
def channel(context: Context, ask: Setting) -> list[Configured] | Changed:
    """Say over what this machine meets others, beside the network; without a name, list it.

    It is written into config.toml, and counts once the daemon begins anew.

        muster channel
        muster channel drop ~/Sync/muster
        muster channel drop --set deadline_s=60
        muster channel ssh build=me@build.local
        muster channel nats studio --set serve=0.0.0.0:4222
        muster channel drop --off
    """
    home = context.home
    home.require()
    if not ask.channel:
        if ask.place or ask.set or ask.keys or ask.off:
            raise Malformed("say of which channel: `muster channel NAME …`")
        if ask.restart:
            return Changed("", "", "", _counts(context, restart=True))
        return [_configured(home, spec) for spec in CHANNELS]
    spec = _spec(ask.channel)
    text = _text(home)
    if ask.off:
        if ask.place or ask.set or ask.keys:
            raise Malformed("--off takes everything away: leave the rest out")
        changed = without_settings(text, f"channel.{spec.name}")
        if spec.name in _BESIDE:
            changed = without_settings(changed, spec.name)
    else:
        spec.load()
        _check_keys(home, spec, ask)
        if ask.place and issubclass(spec.load().Options, LinkOptions):
            machine, equals, _ = ask.place.partition("=")
            if equals:
                _check_machine(context, machine)
        changed = _with(text, spec, ask)
    _check(home, changed)
    if ask.keys:
        home.put(cloud.KEYS, _keys(ask.keys))
    if changed != text:
        home.put("config.toml", changed.encode())
    did = "off" if ask.off else "set"
    same = changed == text and not ask.keys and not ask.restart
    counts = "" if same else _counts(context, restart=ask.restart)
    return Changed(spec.name, did, _says(changed, spec), counts)


def _spec(name: str) -> Spec:
    for spec in CHANNELS:
        if spec.name == name:
            return spec
    known = [spec.name for spec in CHANNELS]
    near = nearest(name, known)
    meant = f"; did you mean {near}?" if near else f": there are {', '.join(known)}"
    raise NotFound(f"{name[:40]!r} is no channel{meant}")


def _configured(home: Home, spec: Spec) -> Configured:
    says = _says(_text(home), spec)
    state, reason = "on" if says or spec.name == FIRST else "off", ""
    try:
        spec.load()
    except Broken as error:
        state, reason = "missing", str(error)
    return Configured(spec.name, state, says, reason)


def _says(text: str, spec: Spec) -> str:
    """What a config.toml says of a channel, as one line."""
    found = tomllib.loads(text)
    sections: list[Any] = [found.get("channel"), found if spec.name in _BESIDE else None]
    pairs = [
        pair
        for section in sections
        if isinstance(section, dict) and isinstance(section.get(spec.name), dict)
        for pair in section[spec.name].items()
    ]
    return ", ".join(f"{name} = {_shown(value)}" for name, value in pairs if value)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {said}" for name, said in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _text(home: Home) -> str:
    home.config()
    path = home.path / "config.toml"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _with(text: str, spec: Spec, ask: Setting) -> str:
    """The file with what is asked for. Raises: Malformed, Refused."""
    shape = spec.load().Options
    if not ask.place and not ask.set and not ask.keys:
        raise Malformed(f"say where: {_how(spec, shape)}; `muster channel --help` has examples")
    if ask.place and issubclass(shape, LinkOptions):
        machine, equals, address = ask.place.partition("=")
        if not equals:
            raise Malformed(f"say of which machine: {_how(spec, shape)}")
        text = with_setting(text, f"channel.{spec.name}.peers.{machine}", address)
    elif ask.place:
        place = ask.place
        if spec.name == "drop" and not place.startswith("~"):
            # The daemon has another folder than the shell.
            place = os.path.abspath(place) if "://" not in place else place
        text = with_setting(text, f"channel.{spec.name}.place", place)
    tables = {f"channel.{spec.name}": shape, spec.name: _BESIDE.get(spec.name, Struct)}
    types = {
        field.name: (table, field.type)
        for table, each in reversed(tables.items())
        for field in msgspec.structs.fields(each)
    }
    for each in ask.set:
        name, equals, value = each.partition("=")
        if not equals or name not in types:
            near = nearest(name, types)
            meant = f"; did you mean {near}?" if near else f": there are {', '.join(sorted(types))}"
            raise Malformed(f"{each[:60]!r} sets nothing of {spec.name}{meant}")
        table, type_ = types[name]
        lists = type_ == tuple[str, ...] or (type_ == str | tuple[str, ...] and "," in value)
        many = value.split(",") if lists else value
        try:
            typed = msgspec.convert(many, type_, strict=False)
        except msgspec.ValidationError as error:
            raise Malformed(f"{each[:60]!r}: {error}") from error
        text = with_setting(text, f"{table}.{name}", typed)
    return text


def _how(spec: Spec, shape: type[Struct]) -> str:
    if not issubclass(shape, LinkOptions):
        return f"`muster channel {spec.name} PLACE`"
    own = ", or of this one `muster channel http --set listen=auto`" * (spec.name == FIRST)
    return f"`muster channel {spec.name} MACHINE=ADDRESS`{own}"


def _check_machine(context: Context, name: str) -> None:
    """Raises: NotFound where the fleet has no such machine, as far as a daemon here knows."""
    check_name(name, "The machine")
    if context.running():
        known = sorted(str(each["name"]) for each in context.ask("machines", {}))
        if name not in known:
            raise NotFound(f"no machine is called {name!r}; there are {', '.join(known)}")


def _check(home: Home, text: str) -> None:
    """Raises: Broken, as the daemon would at its start."""
    path = home.path / "config.toml"
    check_config(read_config(tomllib.loads(text), path), home.facts(), str(path))


def _check_keys(home: Home, spec: Spec, ask: Setting) -> None:
    """Raises: Refused where a bucket has no keys here, Malformed where nothing else has any."""
    if spec.name != cloud.NAME:
        if ask.keys:
            raise Malformed(f"{spec.name} has no keys; --keys is for cloud")
    elif not ask.keys:
        try:
            cloud.keys_of(home.variables(cloud.KEYS))
        except MusterError as error:
            raise Refused(
                f"{error}; or name a file with its two lines: `muster channel cloud --keys FILE`"
            ) from error


def _keys(source: str) -> bytes:
    """What a file of keys holds, once it is known to be one. Raises: Broken, Malformed."""
    try:
        raw = (
            sys.stdin.buffer.read(_KEYS_BYTES_MAX + 1)
            if source == "-"
            else Path(source).read_bytes()[: _KEYS_BYTES_MAX + 1]
        )
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {source}") from error
    except OSError as error:
        raise unable(f"{source} cannot be read ({error.strerror})", error) from error
    if len(raw) > _KEYS_BYTES_MAX:
        raise Malformed(f"{source} is too long for a file of keys")
    try:
        cloud.keys_of(environment.parse(raw.decode(), source))
    except UnicodeDecodeError as error:
        raise Malformed(f"{source} is no file of keys") from error
    return raw


def _counts(context: Context, *, restart: bool) -> str:
    if not context.running():
        return "next"
    if not restart:
        return "later"
    end(context)
    begin(context)
    return "now"
