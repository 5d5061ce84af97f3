"""The keychain of the system, where there is one: the only file that knows the library `keyring`.

Rule 1: a keychain is one of `BACKENDS`, looked for in this order. What a file or a variable of the
library's own names instead, what a plugin brings, and what keeps values as plain text or nowhere is
none: it would be a worse file than ours.
Rule 2: nothing here waits for ever: a keychain may ask its person first, who may not be there.
Rule 3: an error says what the keychain refused, and never a value.
"""

import contextlib
import importlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, TypeVar

from muster.errors import Broken, NotFound, Unreachable

T = TypeVar("T")

# By module and class, as the library has them: macOS, Linux desktops, KDE, Windows.
BACKENDS: tuple[tuple[str, str], ...] = (
    ("keyring.backends.macOS", "Keyring"),
    ("keyring.backends.SecretService", "Keyring"),
    ("keyring.backends.kwallet", "DBusKeyring"),
    ("keyring.backends.Windows", "WinVaultKeyring"),
)
# A person who sits there has typed a password by then.
ANSWER_S: Final = 30.0


class Backend(Protocol):
    """What the library's backends have in common."""

    def get_password(self, service: str, username: str) -> str | None: ...
    def set_password(self, service: str, username: str, password: str) -> None: ...
    def delete_password(self, service: str, username: str) -> None: ...


def find() -> Backend | None:
    """The keychain that works here, None without one. Blocks a little: it is asked."""
    try:
        importlib.import_module("keyring")
    except ImportError:
        return None
    for module, name in BACKENDS:
        # A system has the modules of others, which need what is not installed there.
        with contextlib.suppress(ImportError):
            found = getattr(importlib.import_module(module), name)
            # It says so itself; whatever keeps it from that means no.
            if _answered(partial(getattr, found, "viable")):
                backend: Backend = _answered(found)
                return backend
    return None


class Keychain:
    """The secrets of one home in the keychain; `service` tells them from those of another."""

    def __init__(self, backend: Backend, service: str) -> None:
        self._backend, self._service = backend, service

    def get(self, name: str) -> str:
        """Raises: NotFound, Unreachable."""
        value = _answered(lambda: self._backend.get_password(self._service, name))
        if value is None:
            raise NotFound(f"the keychain has no secret {name} any more; set it again")
        return str(value)

    def put(self, name: str, value: str) -> None:
        """Raises: Unreachable; Broken where it says another thing afterwards."""
        _answered(lambda: self._backend.set_password(self._service, name, value))
        if self.get(name) != value:
            raise Broken(f"the keychain kept another value of {name}; set it with --in file")

    def remove(self, name: str) -> None:
        """Harmless where it is not there. Raises: Unreachable."""
        if _answered(lambda: self._backend.get_password(self._service, name)) is not None:
            _answered(lambda: self._backend.delete_password(self._service, name))


def _refusals() -> tuple[type[BaseException], ...]:
    """What the library and those that it stands on raise, as far as they are installed."""
    found: list[type[BaseException]] = [OSError]
    for module, name in (
        ("keyring.errors", "KeyringError"),
        ("secretstorage.exceptions", "SecretStorageException"),
        ("jeepney", "DBusErrorResponse"),
    ):
        # Only what is installed can raise errors of its own.
        with contextlib.suppress(ImportError):
            found.append(getattr(importlib.import_module(module), name))
    return tuple(found)


def _answered(ask: Callable[[], T]) -> T:
    """What it answers in time, asked in a thread of its own. Raises: Unreachable."""
    answer, why = list[T](), ["has not answered"]

    def work() -> None:
        try:
            answer.append(ask())
        except _refusals() as error:
            # Its sentence is not repeated: what a keychain quotes there, nobody here has read.
            why[0] = f"refused ({type(error).__name__})"

    # A daemon thread: a keychain that waits for its person must not keep the program from ending.
    thread = threading.Thread(target=work, name="muster-keychain", daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    if not answer:
        raise Unreachable(
            f"the keychain {why[0]}: unlock it, or keep the secret in a file of this home with "
            "`muster secret set NAME --in file`"
        )
    return answer[0]
