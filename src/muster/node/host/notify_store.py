"""`notify.toml`: the services by which people are told, with the passwords to them.

Rule 1: an address of a service is a secret: it lies in this file, which nobody else can read, or in
the keychain where a person says so, and in no entry, argument, log, answer or error.
Rule 2: it is a file unless somebody says otherwise: a keychain that waits for its person tells
nobody anything at three in the morning.
Rule 3: it is read anew for each message.
"""

import json
import re
import secrets
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec.structs import replace

from muster.atomic_file import write_file
from muster.errors import Broken, Malformed, NotFound, Refused
from muster.fleet.escalation import As, Service
from muster.fleet.name import NAME_PATTERN
from muster.limits import NOTIFY_SERVICES_MAX
from muster.node.host import keychain
from muster.node.host.owner import require_own
from muster.node.host.private_file import read_private

FILE: Final = "notify.toml"
URL_CHARS_MAX: Final = 4096
_FILE_BYTES_MAX: Final = 256 * 1024
# What a person does about a file that is of no use.
_ANEW: Final = "add the services anew"
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://[^\s]+", re.IGNORECASE)
# What a service is used as where nobody says it, by the scheme of its address; all others push.
_CHATS: Final = frozenset({
    "discord", "guilded", "irc", "ircs", "matrix", "matrixs", "mmost", "mmosts", "msteams",
    "revolt", "rocket", "rockets", "ryver", "slack", "webexteams", "workflow", "workflows",
    "wxteams", "xmpp", "xmpps", "zulip",
})  # fmt: skip
_MAILS: Final = frozenset({
    "mailgun", "mailto", "mailtos", "office365", "sendgrid", "ses", "smtp2go",
})  # fmt: skip


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One service: `url` is "" where it lies in the keychain."""

    used_as: As = msgspec.field(name="as")
    place: Literal["file", "keychain"] = msgspec.field(name="in", default="file")
    url: Annotated[str, msgspec.Meta(max_length=URL_CHARS_MAX)] = ""


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. `keychain` is how the keychain calls this home."""

    keychain: str = ""
    service: dict[Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)], Kept] = {}


def used_as(url: str) -> As:
    """What a service is used as where nobody says it."""
    scheme = url.partition("://")[0].lower()
    return "chat" if scheme in _CHATS else "mail" if scheme in _MAILS else "push"


def check(name: str, url: str) -> None:
    """Raises: Malformed, without the address."""
    if not re.match(NAME_PATTERN, name):
        raise Malformed(f"{name[:80]!r} is no name: use a-z, 0-9 and '-', as in phone")
    if not _SCHEME.fullmatch(url) or len(url) > URL_CHARS_MAX or not url.isprintable():
        raise Malformed(
            "this is no address as Apprise writes them (mailto://…, ntfy://…, slack://…): one "
            "line, without blanks"
        )


class NotifyStore:
    """The services of a home. Creating it touches nothing."""

    def __init__(self, home: Path) -> None:
        self._home, self._path = home, home / FILE

    def known(self) -> Known:
        """Raises: Broken where others can read the file, or it is none; without any value."""
        try:
            raw = read_private(self._path, _FILE_BYTES_MAX, self._home, _ANEW)
        except NotFound:
            return Known()
        try:
            return msgspec.convert(tomllib.loads(raw.decode()), Known)
        except (ValueError, msgspec.ValidationError):
            # What it quotes may be a password.
            raise Broken(
                f"{self._path} cannot be read as what `muster notify add` writes: mend it, or "
                f"remove it and {_ANEW}"
            ) from None

    def services(self) -> tuple[Service, ...]:
        """Raises: Broken."""
        return tuple(Service(name, each.used_as) for name, each in self.known().service.items())

    def url(self, name: str) -> str:
        """Where a service is reached. Blocks: a keychain may ask. Raises: NotFound, Broken."""
        known = self.known()
        kept = known.service.get(name)
        if kept is None:
            raise NotFound(f"there is no service {name[:80]!r} here; `muster notify list`")
        if kept.place == "file":
            return kept.url
        chain = keychain.find()
        if chain is None:
            raise Broken(f"the keychain that has the address of {name} cannot be used here")
        return keychain.Keychain(chain, known.keychain).get(name)

    def add(self, name: str, url: str, kind: As, *, in_keychain: bool) -> None:
        """Keep a service, or another address of it. Raises: Malformed, NotFound, Refused."""
        require_own(self._home, "muster notify")
        check(name, url)
        known = self.known()
        if name not in known.service and len(known.service) >= NOTIFY_SERVICES_MAX:
            raise Refused(f"a machine has at most {NOTIFY_SERVICES_MAX} services; remove one first")
        kept = Kept(kind, "file", url)
        if in_keychain:
            chain = keychain.find()
            if chain is None:
                raise NotFound("there is no keychain here that this program can use")
            known = replace(known, keychain=known.keychain or f"muster-{secrets.token_hex(8)}")
            keychain.Keychain(chain, known.keychain).put(name, url)
            kept = Kept(kind, "keychain")
        self._write(replace(known, service={**known.service, name: kept}))

    def remove(self, name: str) -> None:
        """Raises: NotFound, Unreachable."""
        require_own(self._home, "muster notify")
        known = self.known()
        kept = known.service.get(name)
        if kept is None:
            raise NotFound(f"there is no service {name[:80]!r} here; `muster notify list`")
        left = {each: what for each, what in known.service.items() if each != name}
        self._write(replace(known, service=left))
        if kept.place == "keychain" and (chain := keychain.find()) is not None:
            keychain.Keychain(chain, known.keychain).remove(name)

    def _write(self, known: Known) -> None:
        lines = [
            "# Who is told what happens: `muster notify` writes this file. Nobody else reads it."
        ]
        if known.keychain:
            lines.append(f"keychain = {json.dumps(known.keychain)}")
        for name, kept in known.service.items():
            lines += ["", f"[service.{name}]"]
            told = msgspec.to_builtins(kept)
            lines += [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in told.items() if v]
        write_file(self._path, "\n".join([*lines, ""]).encode())
