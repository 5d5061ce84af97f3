"""Keychains of the tests, as the library `keyring` has them: one that works, and others."""

from typing import ClassVar

from keyring.errors import KeyringLocked


class Keyring:
    """A keychain in memory, for all that ask in one test."""

    viable = True
    values: ClassVar[dict[tuple[str, str], str]] = {}
    locked: ClassVar[bool] = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringLocked("the value was canary-in-an-error")
        return self.values.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.locked:
            raise KeyringLocked("the value was canary-in-an-error")
        self.values[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.values[service, username]


class Absent(Keyring):
    viable = False


class Forgetful(Keyring):
    """It takes a value and keeps none, as the library's backend `null` does."""

    def set_password(self, service: str, username: str, password: str) -> None:
        return None

    def get_password(self, service: str, username: str) -> str | None:
        return None
