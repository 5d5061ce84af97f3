"""Where one machine keeps what it is: its seeds, its configuration, its log.

Rule 1: seeds are created once (O_EXCL, 0600, in a 0700 folder, synced) and never overwritten.
Rule 2: a seed that others may read is refused: the person hears how to mend it.
Rule 3: only this file knows the names inside a home.

`$MUSTER_HOME` names the home; without it the platform's data folder is taken. The high-water mark
lies in another folder (`mark_folder`), so that restoring the home from a backup is noticed. The
socket lies in the home where its path fits into 107 bytes, else in a short runtime folder; which
one that is, the daemon writes down in the home, for sessions that have another one.
"""

import contextlib
import hashlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import platformdirs

from muster.atomic_file import write_file
from muster.errors import Broken, Conflict, MusterError, NotFound, Refused, unable
from muster.limits import SOCKET_PATH_BYTES_MAX
from muster.node.host import environment, owner

if TYPE_CHECKING:
    from muster.node.host.config import Config

SEED_BYTES: Final = 32
# What becomes `seed` with the last step of an init or a join.
JOINING: Final = "joining.seed"
# One of these lies where an init or a join was cut short, which goes on there.
_BEGUN: Final = frozenset({JOINING, "authority.seed", "operator.seed"})
_NAMED_MAX: Final = 3
_ANEW: Final = "put it back from a copy of this home, or join the fleet anew with --home NEW-FOLDER"


def default_home() -> Path:
    """The platform's folder for a person's data, where nobody says another one."""
    return Path(platformdirs.user_data_dir("muster", appauthor=False))


DEFAULT_REPOSITORY: Final = "default-repository"
DOOR_PORT: Final = "door.port"


class Home:
    """One home folder; creating the object touches nothing."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path or os.environ.get("MUSTER_HOME") or default_home()).absolute()
        self.database, self.blobs = str(self.path / "log.db"), str(self.path / "blobs")
        self.index = str(self.path / "index.db")
        self.repos, self.work = str(self.path / "repos"), str(self.path / "work")
        self.mirrors = self.path / "mirrors"
        self.repos_cache, self.landing = self.path / "repos-cache", self.path / "landing"
        self.daemon_log, self.lock = str(self.path / "daemon.log"), self.path / "lock"
        self.run = self.path / "run"
        # There while a person has put the daemon down: nobody who comes by begins one.
        self.put_down = self.path / "put-down"
        self.pid_file, self.cut_off = str(self.run / "pid"), self.run / "cut-off"
        self.ssh_trust = self.path / "ssh" / "trust.json"
        self.context_map, self.context_basis = self.path / "context.json", self.path / "context.db"

    @property
    def exists(self) -> bool:
        return (self.path / "seed").exists()

    @property
    def lost_seed(self) -> str:
        """A sentence where a machine lived here and its key is gone, else "".

        A new key beside its log would be a second machine, and the end of what is there.
        """
        has = self.has_seed
        if has("seed") or not (has("log.db") or (has("fleet.json") and not has(JOINING))):
            return ""
        return f"{self.path}/seed is missing, the key of the machine that lives there: {_ANEW}"

    def require(self) -> None:
        """Raises: NotFound where no machine lives here; Broken where its seed was lost."""
        if not self.exists:
            raise (Broken if self.lost_seed else NotFound)(self.absent())

    def stay_down(self) -> None:
        """Who comes through sshd begins no daemon from now on, until one that stays begins."""
        # Whoever stops goes on: a disk that takes no empty file lets no daemon begin either.
        with contextlib.suppress(OSError):
            self.put_down.touch()

    def absent(self) -> str:
        """Why no machine is here, a colon, and what to do."""
        return self.lost_seed or (
            f"no machine lives in {self.path}: start a fleet with `muster init`, or join one with "
            "`muster join`"
        )

    def check_vacant(self) -> None:
        """Whether a machine may be made here. Raises: Conflict, Broken, and nothing is changed.

        A home is a folder of its own: it is shut to others, and set aside whole when its machine
        leaves. So a folder that holds anything is none, but where an init or a join was cut short.
        """
        if self.exists:
            raise Conflict(
                f"a machine lives in {self.path} already; give another folder with --home, or set "
                "MUSTER_HOME"
            )
        if lost := self.lost_seed:
            raise Broken(lost)
        there = sorted(each.name for each in self._contents())
        if not _BEGUN.isdisjoint(there):
            self._check_ours()
        elif there:
            more = f" and {len(there) - _NAMED_MAX} more" if len(there) > _NAMED_MAX else ""
            raise Conflict(
                f"{self.path} holds other things already ({', '.join(there[:_NAMED_MAX])}{more}), "
                "and a home is a folder of its own: give a new one, such as --home "
                f"{shlex.quote(str(self.path / 'muster'))}"
            )

    def _contents(self) -> Iterator[Path]:
        """What lies in the folder, but for what a disk or a refused join leaves in an empty one."""
        if not self.path.is_dir():
            # What cannot be a folder at all is refused where it is made one.
            return
        for each in self.path.iterdir():
            empty = each.name == "run" and each.is_dir() and not any(each.iterdir())
            if not empty and each.name != "lost+found":
                yield each

    def _check_ours(self) -> None:
        """A seed that another user could have put there is no key of ours. Raises: Conflict."""
        if sys.platform == "win32":
            return
        status = self.path.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise Conflict(
                f"in {self.path} an init or a join was cut short, and others could write there: "
                "its seeds may be anybody's; give a new folder with --home"
            )

    @property
    def socket(self) -> str:
        own = self.socket_of_session
        if Path(own).parent == self.run:
            return own
        # Where the daemon of another session said that it listens, if one did.
        try:
            found = (self.run / "socket").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            found = ""
        # A copied home brings the other one's file along, and must not reach the other's daemon.
        return found if Path(found).parent.name == self._short else own

    @property
    def socket_of_session(self) -> str:
        """Where a daemon started in this session listens."""
        inside = str(self.run / "sock")
        if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES_MAX:
            return inside
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        return str(Path(base) / self._short / "sock")

    @property
    def _short(self) -> str:
        return f"muster-{os.getuid()}-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]}"

    def note_socket(self) -> None:
        """We are the daemon: write down where we listen, for every other session."""
        self.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.put("run/socket", f"{self.socket_of_session}\n".encode())

    @property
    def mark_folder(self) -> str:
        """Outside the home on purpose; `$MUSTER_STATE` moves it (tests, several homes)."""
        named = self._mark_folders()
        return str(next((each for each in named if each.is_dir()), named[0]))

    def _mark_folders(self) -> list[Path]:
        """One home has one mark, whatever path leads to it; once each path had one of its own."""
        return [
            Path(self.state_folder).absolute() / hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
            for path in dict.fromkeys((os.path.realpath(self.path), str(self.path)))
        ]

    @property
    def state_folder(self) -> str:
        """Where the marks of this home's person lie, whoever asks."""
        if moved := os.environ.get("MUSTER_STATE"):
            return moved
        theirs = owner.stranger(self.path)
        if theirs is not None:
            # An account without a folder of its own: ours is taken.
            with contextlib.suppress(NotFound):
                return str(owner.folder_of(theirs) / owner.STATE)
        return platformdirs.user_state_dir("muster", appauthor=False)

    @property
    def own_folders(self) -> tuple[str, ...]:
        """What no work is shown: a daemon's home, marks and socket, wherever they lie."""
        return str(self.path), self.state_folder, os.path.dirname(self.socket_of_session)

    def create(self) -> None:
        """Raises: Broken where no folder can be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Broken(
                f"{self.path} cannot be a home: {error.strerror}; give another folder with --home"
            ) from error
        self.path.chmod(0o700)
        self.run.mkdir(exist_ok=True, mode=0o700)

    def set_aside(self) -> Path:
        """Give the home of a machine that is none any more another name, and say which.

        Nothing is deleted. The marks go first: a machine that is made here next must not find one.
        Raises: Broken where it cannot be; then the home is where it was.
        """
        aside = [f"{self.path.name}.left{n or ''}" for n in range(1_000)]
        where = next(p for p in map(self.path.with_name, aside) if not os.path.lexists(p))
        marks = [each for each in self._mark_folders() if each.is_dir()]
        try:
            for mark in marks:
                mark.rename(mark.with_name(f"{mark.name}.{os.urandom(4).hex()}"))
            self.path.rename(where)
        except OSError as error:
            raise Broken(f"{self.path} cannot be renamed ({error.strerror}): move it away, then "
                         "`muster join` makes a new machine") from error  # fmt: skip
        return where

    def has_seed(self, name: str) -> bool:
        return (self.path / name).exists()

    def seed(self, name: str = "seed") -> bytes:
        """The 32 bytes of `seed`, `authority.seed` or `operator.seed`.

        Raises: NotFound; Refused where others may read it; Broken where it is damaged.
        """
        path = self.path / name
        try:
            mode = path.stat().st_mode & 0o077
            raw = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"{path} is not there: this machine does not hold that key") from error
        except OSError as error:
            raise unable(f"{path} cannot be read: {error.strerror}", error) from error
        if mode and sys.platform != "win32":
            raise Refused(f"others can read {path}: run `chmod 600 {path}` and ask who saw it")
        if len(raw) != SEED_BYTES:
            raise Broken(f"{path} is damaged: {len(raw)} bytes instead of {SEED_BYTES}")
        return raw

    def open_seeds(self) -> list[str]:
        """What is wrong with the keys that no daemon reads, and a person signs with: a sentence
        for each that others can read.
        """
        found = []
        for name in ("operator.seed", "device.seed"):
            try:
                if self.has_seed(name):
                    self.seed(name)
            except Refused as error:
                found.append(str(error))
            except MusterError:
                # Whoever orders with it hears it; to the daemon it is nothing.
                continue
        return found

    def put_seed(self, name: str, seed: bytes) -> None:
        """Raises: Refused where there is one already: a key is never overwritten."""
        path = self.path / name
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise Refused(
                f"{path} exists; a machine never gets a second key in one home"
            ) from error
        with os.fdopen(handle, "wb") as file:
            file.write(seed)
            file.flush()
            os.fsync(file.fileno())

    def default_repository(self) -> str:
        """The repository that an intention is about where none is named; "" without one."""
        try:
            return (self.path / DEFAULT_REPOSITORY).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    @property
    def door_port(self) -> int:
        """The port at which this machine's agents know its door; 0 where none was chosen yet."""
        try:
            port = int((self.path / DOOR_PORT).read_bytes()[:16])
        except (OSError, ValueError):
            return 0
        return port if 0 < port < 1 << 16 else 0

    def keep_door_port(self, port: int) -> None:
        self.put(DOOR_PORT, f"{port}\n".encode())

    def put(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        write_file(self.path / name, content)

    def agent_variables(self) -> dict[str, str]:
        """`agents.env`: keys of agents, for a daemon that no shell started. Raises: `variables`."""
        return self.variables("agents.env")

    def variables(self, name: str) -> dict[str, str]:
        """What a file of keys says, as `NAME=VALUE`; {} without one.

        Raises: Broken where others may read it, or naming a line of no use.
        """
        path = self.path / name
        try:
            mode = path.stat().st_mode & 0o077
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise unable(f"{path} cannot be read: {error}", error) from error
        except UnicodeDecodeError as error:
            raise Broken(f"{path} cannot be read: {error}") from error
        if mode and sys.platform != "win32":
            # Broken, for it is this machine that cannot go on: another one may take the task.
            raise Broken(f"others can read {path}, which holds keys: run `chmod 600 {path}`")
        return environment.parse(text, str(path))

    def facts(self) -> dict[str, Any]:
        """`fleet.json`: the fleet's id, our record, the CA certificate, whom to dial.

        Raises: NotFound; Broken where it says anything else than what `put_facts` wrote.
        """
        from muster.node.host.fleet_file import read_facts  # noqa: PLC0415 - a quick command reads none

        path = self.path / "fleet.json"
        try:
            raw = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"{path} is not there: {_ANEW}") from error
        except OSError as error:
            raise unable(f"{path} cannot be read ({error.strerror}): {_ANEW}", error) from error
        return read_facts(raw, path, _ANEW)

    def ssh_certificates(self) -> bytes:
        """What a hub gave for the sshd of others, b"" before that."""
        try:
            return (self.path / "ssh" / "certificates.json").read_bytes()[:65_536]
        except OSError:
            return b""

    def put_ssh_certificates(self, content: bytes) -> None:
        (self.path / "ssh").mkdir(mode=0o700, exist_ok=True)
        self.put("ssh/certificates.json", content)

    def put_ssh_trust(self, content: bytes) -> None:
        (self.path / "ssh").mkdir(mode=0o700, exist_ok=True)
        self.put("ssh/trust.json", content)

    def put_context_map(self, content: bytes) -> None:
        """Durable on return. Raises: Broken, Exhausted."""
        self.put(self.context_map.name, content)

    def put_facts(self, facts: dict[str, Any]) -> None:
        self.put("fleet.json", json.dumps(facts, indent=1, sort_keys=True).encode())

    def set_config(self, name: str, value: Any) -> None:
        """Write another value of one setting. Raises: Refused, Broken; then nothing was changed."""
        from muster.node.host.config import with_setting  # noqa: PLC0415 - a quick command has none

        self.config()
        path = self.path / "config.toml"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        self.put("config.toml", with_setting(text, name, value).encode())

    def config(self) -> "Config":
        """Raises: Broken naming the line where the file is not TOML or a value is of no use."""
        import tomllib  # noqa: PLC0415 - a quick command reads none

        from muster.node.host.config import Config, read_config  # noqa: PLC0415 - as above

        path = self.path / "config.toml"
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Config()
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Broken(f"{path}: {error}; mend the file") from error
        except OSError as error:
            raise unable(f"{path} cannot be read: {error.strerror}", error) from error
        return read_config(found, path)
