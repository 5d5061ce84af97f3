"""Verbs that copy a file between this machine and another one: `muster cp`."""

import os
import re
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta, Struct

from muster.errors import Malformed
from muster.fleet.name import Hex32
from muster.limits import INT_ABS_MAX
from muster.node.attempts import copies
from muster.node.verb import Line
from muster.verbs.declaration import (
    Bound,
    Context,
    Daemon,
    Perform,
    Request,
    Stream,
    data,
    opt,
    pos,
    verb,
)

PATH_CHARS_MAX: Final = 4096
# All of it is compared with the object of a grant, which is no longer.
PLACE_CHARS_MAX: Final = 200
_URL: Final = re.compile(r"muster://([^/:]+)/(.+)", re.DOTALL)
# A machine of another fleet; what stands behind is below the folder that its grant names.
_FOREIGN: Final = re.compile(
    r"(?:muster://([a-z0-9-]{1,63}\.[a-z0-9-]{1,63})/|([a-z0-9-]{1,63}\.[a-z0-9-]{1,63}):)(.*)",
    re.DOTALL,
)
_SHORT: Final = re.compile(r"([a-z0-9-]{1,63}|[0-9a-f]{64}):(.*)", re.DOTALL)

Count = Annotated[int, Meta(ge=0, le=INT_ABS_MAX)]


class Address(NamedTuple):
    """A path on a machine, whole or from `~` on; here where `machine` is ""."""

    machine: str
    path: str


def address(text: str) -> Address:
    """What `muster://machine/path`, `machine:path` or a path here means. Raises: Malformed."""
    if found := _FOREIGN.fullmatch(text):
        return Address(found[1] or found[2], found[3])
    if found := _URL.fullmatch(text):
        machine, path = found.groups()
        return Address(machine, _whole(path if path.startswith("~/") else f"/{path}"))
    if text.startswith("muster://"):
        raise Malformed(
            f"{text[:80]!r} is no address: write muster://machine/path, or muster://machine/~/path "
            "for one in its person's home"
        )
    if found := _SHORT.fullmatch(text):
        machine, path = found.groups()
        return Address(machine, _whole(path if path.startswith(("/", "~/")) else f"~/{path}"))
    return Address("", text)


def _whole(path: str) -> str:
    """The path without what means nothing; one that goes up is said where it leads."""
    parts = path.split("/")
    if ".." in parts or "\0" in path:
        raise Malformed(f"{path[:80]!r} goes up by `..`: say the path as it is from / or ~ on")
    kept = [part for part in parts[1:] if part not in ("", ".")]
    return "/".join([parts[0], *kept]) + "/" * path.endswith("/")


class Files(Request, frozen=True):
    source: Annotated[str, pos("the file: a path here, machine:path or muster://machine/path")]
    target: Annotated[str, pos("where it is to lie; a folder where it ends with /")]
    recursive: Annotated[bool, opt("a folder, with all files below it", short="r")] = False
    plan: Annotated[bool, opt("say what would be ordered of which machine, and send nothing")] = (
        False
    )


class Meant(Struct, frozen=True):
    """Which way a file goes, the machine, the path there and the path here.

    `folder`: they are folders, and all that is below goes.
    """

    way: Literal["read", "write"]
    machine: str
    far: str
    near: str
    folder: bool = False


@verb("cp", auth="local", runs="client", group="The fleet", steps=True,
      says=(
          Line("{path} is there: {files} files, {size} bytes; {same} were before.", "files"),
          Line("{path}: there are no files in it, and nothing was copied.", "files=0"),
          Line("{path} is there: {size} bytes, sha256 {sha256:12}.", "sha256 !at"),
          Line("{path} is there: {size} bytes, sha256 {sha256:12}; it went on at byte {at}.", "at"),
      ))  # fmt: skip
def cp(context: Context, ask: Files) -> Meant:
    """Copy a file to another machine, or from one; with -r a folder.

    It goes on where an earlier try ended, and counts when all of it is there and its digest is that
    of the source. A path of another machine is whole, or begins in its person's home. Of a folder
    each plain file is copied, links and devices are named and passed over (exit code 1), and what
    is there already with the same digest stays.

        muster cp /etc/hostname build:
        muster cp /etc/hostname build:name-of-studio
        muster cp muster://build/etc/hostname ./
        muster cp -r notes build:
        muster cp report.pdf build.acme:    # to another operator's fleet, where that grants it
    """
    source, target = address(ask.source), address(ask.target)
    if bool(source.machine) == bool(target.machine):
        raise Malformed(
            "one of the two is on another machine, as machine:path, and one is here: between two "
            "others copy it here first"
            if source.machine
            else "neither is on another machine: write one as machine:path or muster://machine/path"
        )
    if "." in source.machine:
        raise Malformed("no file of another fleet is read: its operator sends it")
    if "." in target.machine and ask.recursive:
        raise Malformed("another fleet is left one file at a time: pack the folder into one")
    if target.machine:
        name = os.path.basename(source.path.rstrip("/") if ask.recursive else source.path)
        folder = target.path.endswith("/") or not target.path
        far = target.path + name if folder else target.path
        return Meant("write", target.machine, far, source.path, ask.recursive)
    near, path = target.path, source.path.rstrip("/") if ask.recursive else source.path
    if near.endswith("/") or os.path.isdir(near):
        near = os.path.join(near, os.path.basename(path))
    return Meant("read", source.machine, path, near, ask.recursive)


class Read(Bound, frozen=True, kw_only=True):
    """`place` is a machine's id and a folder, with a colon between; `path` is below that.

    `names`: the path is a folder, and what is below it is told.
    """

    place: Annotated[str, Meta(max_length=PLACE_CHARS_MAX), data()]
    path: Annotated[str, Meta(max_length=PATH_CHARS_MAX), data()]
    at: Annotated[Count, data()] = 0
    names: Annotated[bool, data()] = False


class Write(Bound, frozen=True, kw_only=True):
    """As of `file.read`; the digest and size are those of the whole file.

    `make`: it is one of a folder; those between are made, and one that is there already stays.
    """

    place: Annotated[str, Meta(max_length=PLACE_CHARS_MAX), data()]
    path: Annotated[str, Meta(max_length=PATH_CHARS_MAX), data()]
    size: Annotated[Count, data()]
    sha256: Annotated[Hex32, data()]
    mode: Annotated[Annotated[int, Meta(ge=0, le=0o777)], data()] = 0o644
    make: Annotated[bool, data()] = False


@verb("file.read", auth="order", runs="stream", object="place", of_machine=True, on="one")
async def read(daemon: Daemon, call: Perform, stream: Stream, ask: Read) -> None:
    """A file of this machine, from a byte on, to whoever may read below that folder.

    muster grant KEY file.read --object build:/srv/out
    """
    copy = copies.Copy(daemon, call, stream, ask.place, ask.path)
    await (copy.names() if ask.names else copy.read(ask.at))


@verb("file.write", auth="order", runs="stream", object="place", of_machine=True, on="one")
async def write(daemon: Daemon, call: Perform, stream: Stream, ask: Write) -> None:
    """A file for this machine, from whoever may write below that folder.

    muster grant KEY file.write --object build:/srv/in
    """
    copy = copies.Copy(daemon, call, stream, ask.place, ask.path)
    await copy.write(ask.size, ask.sha256, ask.mode, make=ask.make)
