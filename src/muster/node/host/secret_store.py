"""The secrets of one machine: where each lies, and to which attempts its owner granted it.

Rule 1: a value lies in one of three places, and in no two: the keychain of the system, a credential
that systemd hands to the daemon, or a file of its own in the home's folder `secrets`.
Rule 2: the index (`secrets/index.json`) has names, places and grants, and never a value. What is
not granted there, no attempt gets.
Rule 3: what others could have read or written is not used: the folder is 0700, each file 0600, and
both belong to who reads them.
Rule 4: nothing is remembered: each attempt reads anew, so that what was taken back is taken back.
"""

import contextlib
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from muster.atomic_file import write_file
from muster.errors import Broken, Conflict, Malformed, MusterError, NotFound, Refused, unable
from muster.node.host import keychain
from muster.node.host.owner import require_own
from muster.node.host.private_file import check_owner, read_private
from muster.node.host.secret_index import GRANTS_MAX, SECRETS_MAX, Index, Kept, Place, without
from muster.node.host.secret_value import VALUE_BYTES_MAX, plain, refusal
from muster.task.secret import Grant, Wanted, check_name, facts_of

if sys.platform != "win32":
    import fcntl

FOLDER: Final = "secrets"
INDEX: Final = "index.json"
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
# What lies in files is looked for in the output of each attempt: a millisecond for each KiB before
# it begins.
FILES_BYTES_MAX: Final = 64 * 1024
_INDEX_BYTES_MAX: Final = 256 * 1024
# What a person does about a file that is of no use.
_ANEW: Final = "set the secret again"


def told(home: Path, environ: Mapping[str, str], now_ms: int) -> dict[str, str]:
    """The grants of a home as facts; attempts and doctor say what is wrong with the files."""
    try:
        return SecretStore(home, environ).facts(now_ms)
    except MusterError:
        return {}


class Taken(NamedTuple):
    """What an attempt is given, and what else of this machine must not be written down."""

    given: Mapping[str, str]
    hidden: Mapping[str, str]


class SecretStore:
    """The secrets of a home; `environ` says where credentials are. Creating it touches nothing."""

    def __init__(self, home: Path, environ: Mapping[str, str] = {}) -> None:
        self.home, self.folder = home, home / FOLDER
        named = environ.get(CREDENTIALS, "")
        self._credentials = Path(named) if os.path.isabs(named) else None

    # --- what is known ------------------------------------------------------------------------

    def index(self) -> Index:
        """Raises: Broken where others may read or write it, or it is none."""
        path = self.folder / INDEX
        try:
            raw = self._read(path, _INDEX_BYTES_MAX)
        except NotFound:
            return Index()
        try:
            found = msgspec.json.decode(raw, type=Index)
            for kept in found.secrets.values():
                for grant in kept.grants:
                    grant.check()
        except (msgspec.DecodeError, Malformed) as error:
            raise Broken(
                f"{path} is damaged: remove it, and set and grant the secrets anew"
            ) from error
        return found

    def credentials(self) -> dict[str, Path]:
        """What systemd handed to this process, by name: whatever of it may be a secret."""
        if self._credentials is None:
            return {}
        try:
            found = sorted(each for each in self._credentials.iterdir() if each.is_file())
        except OSError:
            return {}
        return {each.name: each for each in found[:SECRETS_MAX] if _is_name(each.name)}

    def known(self) -> dict[str, Kept]:
        """Every secret by name, credentials that nobody granted among them. Raises: Broken."""
        found = dict(self.index().secrets)
        for name in self.credentials():
            found.setdefault(name, Kept("credential"))
        return dict(sorted(found.items()))

    def facts(self, now_ms: int) -> dict[str, str]:
        """What the fleet is told: the grants that hold, of what is here. Raises: Broken."""
        credentials = self.credentials()
        return facts_of(
            (name, grant)
            for name, kept in self.index().secrets.items()
            if kept.place == "keychain" or name in credentials or (self.folder / name).exists()
            for grant in kept.grants
            if not grant.is_over(now_ms)
        )

    def faults(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the files, each as a sentence and what mends it."""
        paths = sorted(self.folder.glob("*")) if self.folder.is_dir() else []
        for path in (self.folder, *paths):
            try:
                if path != self.folder:
                    self._read(path, _INDEX_BYTES_MAX)
                elif os.path.lexists(path):
                    self._check_folder()
            except NotFound:
                # It was removed meanwhile, and nothing is wrong with it.
                continue
            except MusterError as error:
                text, _, mend = str(error).partition(": ")
                yield text, mend

    # --- what attempts get ----------------------------------------------------------------------

    def taken(self, wanted: Wanted, agent: str, now_ms: int) -> Taken:
        """What an attempt of this agent is given. Blocks: a keychain may ask its person.

        Whatever can be read here without asking is hidden, granted or not: a program of this user
        can read it, too. Raises: Broken, NotFound or Unreachable naming the secret and why not.
        """
        known = self.known()
        for name in wanted.names:
            self._check_granted(name, known.get(name), (agent, wanted.spec, wanted.phase), now_ms)
        given = {name: self._value(name, known[name].place) for name in wanted.names}
        return Taken(given, {**self.hidden(), **given})

    def value(self, name: str) -> str:
        """What the daemon itself needs. Blocks. Raises: NotFound, Broken, Unreachable."""
        kept = self.known().get(name)
        if kept is None:
            raise NotFound(f"this machine has no secret {name}: `muster secret set {name}` here")
        return self._value(name, kept.place)

    def hidden(self) -> dict[str, str]:
        """The values that any program of this user could read. Raises: Broken."""
        found = {}
        for name, kept in self.known().items():
            if kept.place != "keychain":
                # It was removed meanwhile: it masks nothing any more.
                with contextlib.suppress(NotFound):
                    found[name] = self._value(name, kept.place)
        return found

    def lack(self, name: str, place: Place) -> str:
        """Why a value cannot be read by this program, as a sentence; "" where it can. Blocks."""
        try:
            self._value(name, place)
        except MusterError as error:
            return str(error)
        return ""

    def _check_granted(
        self, name: str, kept: Kept | None, work: tuple[str, str, str], now_ms: int
    ) -> None:
        if kept is None:
            raise Broken(f"this machine has no secret {name}: `muster secret set {name}` there")
        fitting = [grant for grant in kept.grants if grant.fits(*work)]
        if all(grant.is_over(now_ms) for grant in fitting):
            agent, spec, phase = work
            why = "ran out" if fitting else "is missing"
            raise Broken(
                f"the grant of the secret {name} {why} on this machine: `muster secret grant "
                f"{name} --agent {agent} --spec {spec} --phase {phase}` there"
            )

    def _value(self, name: str, place: Place) -> str:
        if place == "keychain":
            value = self._keychain().get(name)
        else:
            path = self.credentials().get(name) if place == "credential" else self.folder / name
            if path is None:
                raise NotFound(
                    f"the secret {name} is no credential of the daemon any more: name it in its "
                    "unit, or set it"
                )
            raw = self._read(path, VALUE_BYTES_MAX, foreign=place == "credential")
            try:
                value = plain(raw)
            except Malformed as error:
                raise Broken(f"the secret {name}: {error}; set it again") from None
        if why := refusal(value):
            raise Broken(f"the secret {name} {why}; set it again")
        return value

    # --- what its owner does ----------------------------------------------------------------------

    def put(self, name: str, value: str, now_ms: int, place: Place | None = None) -> Place:
        """Keep a value, in the keychain where one works, else in a file; its grants stay.

        Raises: Malformed, Conflict, Refused, Broken; then what was there is there.
        """
        check_name(name)
        if why := refusal(value):
            raise Malformed(f"this value of {name} {why}")
        with self._changing() as index:
            before = index.secrets.get(name)
            if before is None and len(index.secrets) >= SECRETS_MAX:
                raise Refused(f"a machine has at most {SECRETS_MAX} secrets; remove one first")
            if (before and before.place == "credential") or name in self.credentials():
                raise Conflict(f"{name} is a credential of systemd: change it in the daemon's unit")
            chain = keychain.find() if place != "file" else None
            if place == "keychain" and chain is None:
                raise NotFound(
                    "there is no keychain here that this program can use: install the extra "
                    "`keychain`, or leave `--in` out and it is kept in a file"
                )
            where: Place = "keychain" if chain is not None else "file"
            others = sum(
                (self.folder / each).stat().st_size
                for each, kept in index.secrets.items()
                if kept.place == "file" and each != name and (self.folder / each).exists()
            )
            if where == "file" and others + len(value.encode()) > FILES_BYTES_MAX:
                most = FILES_BYTES_MAX // 1024
                raise Refused(f"a machine keeps at most {most} KiB of secrets in files")
            service = index.service or f"muster-{secrets.token_hex(8)}"
            if chain is not None:
                keychain.Keychain(chain, service).put(name, value)
            else:
                write_file(self.folder / name, value.encode())
            kept = Kept(where, now_ms, before.grants if before else ())
            self._keep(replace(index, service=service), name, kept)
            if before is not None and before.place != where:
                self._drop(name, before.place, index.service)
        return where

    def remove(self, name: str) -> Place:
        """Take a secret away with all its grants. Raises: NotFound, Conflict, Unreachable."""
        with self._changing() as index:
            kept = index.secrets.get(name)
            if name in self.credentials() or (kept and kept.place == "credential"):
                raise Conflict(
                    f"{name} is a credential of systemd: take it out of the daemon's unit; "
                    f"`muster secret revoke {name}` takes back what was granted"
                )
            if kept is None:
                raise NotFound(f"there is no secret {name[:80]!r} here; `muster secret list`")
            # First nobody may have it; then it is gone.
            self._write(replace(index, secrets=without(index.secrets, name)))
            self._drop(name, kept.place, index.service)
        return kept.place

    def grant(self, name: str, grant: Grant, *, is_credential: bool = False) -> Kept:
        """Let attempts have a secret; the same grant again has a new end.

        Raises: NotFound, Malformed, Refused.
        """
        grant.check()
        with self._changing() as index:
            kept = index.secrets.get(name)
            if kept is None and (is_credential or name in self.credentials()):
                kept = Kept("credential")
            if kept is None:
                raise NotFound(f"there is no secret {name[:80]!r} here; `muster secret list`")
            others = tuple(each for each in kept.grants if each.attempts != grant.attempts)
            made = replace(kept, grants=(*others, grant))
            secrets_ = {**index.secrets, check_name(name): made}
            if sum(len(each.grants) for each in secrets_.values()) > GRANTS_MAX:
                raise Refused(
                    f"a machine has at most {GRANTS_MAX} grants of secrets: take one back, or use *"
                )
            self._keep(index, name, made)
        return made

    def revoke(self, name: str, fits: Callable[[Grant], bool]) -> list[Grant]:
        """Take grants back; which. Raises: NotFound where none is such."""
        with self._changing() as index:
            kept = index.secrets.get(name)
            gone = [grant for grant in kept.grants if fits(grant)] if kept else []
            if kept is None or not gone:
                raise NotFound(f"no such grant of {name[:80]!r} is here; `muster secret list`")
            left = tuple(grant for grant in kept.grants if grant not in gone)
            if kept.place == "credential" and not left:
                self._write(replace(index, secrets=without(index.secrets, name)))
            else:
                self._keep(index, name, replace(kept, grants=left))
        return gone

    # --- files -----------------------------------------------------------------------------------

    def _keychain(self) -> keychain.Keychain:
        chain = keychain.find()
        if chain is None:
            raise Broken(
                "the keychain that has this secret cannot be used by this program: set the secret "
                "again with `--in file`, or start the daemon in a session that has the keychain"
            )
        return keychain.Keychain(chain, self.index().service)

    def _keep(self, index: Index, name: str, kept: Kept) -> None:
        self._write(replace(index, secrets={**index.secrets, name: kept}))

    def _write(self, index: Index) -> None:
        write_file(self.folder / INDEX, msgspec.json.format(msgspec.json.encode(index)) + b"\n")

    def _drop(self, name: str, place: Place, service: str) -> None:
        if place == "file":
            (self.folder / name).unlink(missing_ok=True)
        elif place == "keychain" and (chain := keychain.find()) is not None:
            keychain.Keychain(chain, service).remove(name)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Index]:
        """The index while nobody else changes it."""
        require_own(self.home, "muster secret")
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise unable(f"{self.folder} cannot be made ({error.strerror})", error) from error
        self._check_folder()
        if sys.platform == "win32":
            yield self.index()
            return
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # What a command that was killed left half written.
            for each in self.folder.glob(".tmp-*"):
                each.unlink(missing_ok=True)
            yield self.index()
        finally:
            os.close(handle)

    def _check_folder(self) -> None:
        """Raises: Broken where others could put something there."""
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise Broken(f"{self.folder} is no folder: move it away")
        check_owner(self.folder, found, self.home, "700", _ANEW)

    def _read(self, path: Path, most: int, *, foreign: bool = False) -> bytes:
        """A file that is its owner's alone. `foreign`: systemd placed it.

        Raises: NotFound; Broken where it is not.
        """
        try:
            if not foreign:
                self._check_folder()
        except FileNotFoundError as error:
            raise NotFound(f"{path} is not there: {_ANEW}") from error
        except OSError as error:
            raise unable(f"{path} cannot be read: {error.strerror}", error) from error
        return read_private(path, most, self.home, _ANEW, foreign=foreign)


def _is_name(name: str) -> bool:
    with contextlib.suppress(Malformed):
        return check_name(name) == name
    return False
