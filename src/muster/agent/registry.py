"""An agent as a file in the format of the ACP registry: who made it, and where it comes from.

Rule 1: the file is the registry's own (`agent.schema.json`): one that stands there is taken as it
is. What we know beside it stands under `muster`, a key that the registry does not have.
Rule 2: nothing of it is fetched or run: an agent is found by its program on PATH. What the file
says of its package says which program that is, and what a person installs.
"""

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

# The registry's own files have one or two KiB.
FILE_BYTES_MAX: Final = 64 * 1024
FILES_MAX: Final = 200

Text = Annotated[str, Meta(min_length=1, max_length=4_096)]


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A package of npm or PyPI, and what its program is started with."""

    package: Text
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An archive for one platform, and the program in it."""

    archive: Text
    cmd: Text
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}


class Distribution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an agent comes from: at least one way."""

    npx: Package | None = None
    uvx: Package | None = None
    binary: dict[str, Target] = {}

    def __post_init__(self) -> None:
        if not (self.npx or self.uvx or self.binary):
            raise ValueError("an agent comes from npx, uvx or binary")

    @property
    def said(self) -> str:
        """As people say it: `npx opencode-ai@1.18.33`."""
        packages = [("npx", self.npx), ("uvx", self.uvx)]
        ways = [f"{way} {each.package}" for way, each in packages if each is not None]
        return ways[0] if ways else f"binary for {', '.join(sorted(self.binary))}"

    @property
    def command(self) -> tuple[str, ...]:
        """The program that speaks ACP, and its words; a package is taken to be called as it is."""
        package = self.npx or self.uvx
        if package is not None:
            return (bare(package.package), *package.args)
        target = self.binary[min(self.binary)]
        return (PurePosixPath(target.cmd).name, *target.args)

    @property
    def env(self) -> dict[str, str]:
        """What the program is given beside."""
        package = self.npx or self.uvx
        return (self.binary[min(self.binary)] if package is None else package).env


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """The file of an agent. A key that is new to us is left alone, as the registry may grow."""

    id: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,39}\Z")]
    name: Text
    version: Annotated[str, Meta(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+", max_length=100)]
    description: Text
    distribution: Distribution
    muster: dict[str, Any] = {}

    def as_entry(self) -> dict[str, Any]:
        """What the catalogue makes an entry of: what the file says, below what `muster` says."""
        own = dict(self.muster)
        adapter, *words = self.distribution.command
        adapter = str(own.pop("adapter", adapter))
        program = str(own.get("program", adapter))
        npx = self.distribution.npx
        known = {
            "title": self.name,
            "protocol": "acp",
            "command": [adapter, *words],
            "program": program,
            "version_probe": [program, "--version"],
            "npm": [without_version(npx.package)] if npx else [],
            "install": _install(self.distribution),
            "tested": self.version,
            "comes_from": self.distribution.said,
        }
        env = {**self.distribution.env, **own.pop("env", {})}
        return {**known, "env": env, **own}


def read(raw: bytes) -> Registered:
    """The agent of a file.

    Raises: ValueError where it is not in the registry's format, or too large.
    """
    if len(raw) > FILE_BYTES_MAX:
        raise ValueError(f"it has {len(raw)} bytes, and {FILE_BYTES_MAX} is the most")
    try:
        return msgspec.json.decode(raw, type=Registered)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def without_version(package: str) -> str:
    """`@scope/name@1.2.3` or `name==1.2.3` as `@scope/name` or `name`."""
    return re.sub(r"(?<=.)(@|==).*", "", package)


def bare(package: str) -> str:
    """The last part of a package's name: what its program is called, as a rule."""
    return without_version(package).rpartition("/")[2]


def _install(distribution: Distribution) -> str:
    if distribution.npx:
        return f"npm install -g {without_version(distribution.npx.package)}"
    if distribution.uvx:
        return f"uv tool install {without_version(distribution.uvx.package)}"
    return ""
