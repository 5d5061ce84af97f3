"""Letting the machines of the fleet in through the sshd of this person, and through nothing else.

Rule 1: neither root nor the settings of sshd are needed: one line in authorized_keys names the key
that signs the fleet's certificates, and which machines; one program is what those run.
Rule 2: a file of the person's is changed in that one line and nowhere else.
Rule 3: no `command=` stands in the line: it stands in the certificate, and sshd refuses one that is
said in both places.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from muster.atomic_file import write_file
from muster.errors import Conflict, NotFound, unable
from muster.fleet.ssh_certificate import PROGRAM, principal
from muster.node.host.home import Home

_BYTES_MAX: Final = 4 * 1024 * 1024


class Trust:
    """What a person said with `muster ssh trust`, and what follows from it."""

    def __init__(self, home: Home) -> None:
        self._home = home

    @property
    def is_given(self) -> bool:
        return self._home.ssh_trust.exists()

    def give(self, fleet: str, authority: str, machines: Sequence[str], keys: str = "") -> Path:
        """Let these machines in; where authorized_keys is, that says so.

        Raises: Conflict where another home is served already; Broken.
        """
        program = Path.home() / PROGRAM
        text = self._program()
        if program.exists() and program.read_text("utf-8", "replace") != text:
            raise Conflict(
                f"{program} serves another home, or is not ours: move it away, and say it again"
            )
        file = Path(keys).expanduser().absolute() if keys else Path.home() / ".ssh/authorized_keys"
        try:
            program.parent.mkdir(parents=True, exist_ok=True)
            file.parent.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise unable(f"a folder cannot be made ({error})", error) from error
        write_file(program, text.encode(), runs=True)
        self._write(file, fleet, self._line(fleet, authority, machines))
        self._home.put_ssh_trust(json.dumps({"file": str(file)}).encode())
        return file

    def take(self, fleet: str) -> Path:
        """Let nobody in any more. Raises: NotFound where nobody was let in; Broken."""
        if not self.is_given:
            raise NotFound("the fleet is not let in through sshd here: there is nothing to take")
        file = self._file()
        self._write(file, fleet, "")
        program = Path.home() / PROGRAM
        if program.exists() and program.read_text("utf-8", "replace") == self._program():
            program.unlink()
        self._home.ssh_trust.unlink()
        return file

    def follow(self, fleet: str, authority: str, machines: Sequence[str]) -> None:
        """Let these machines in now, where the person did not take the line away."""
        file = self._file()
        if any(_is_ours(line, fleet) for line in _lines(file)):
            self._write(file, fleet, self._line(fleet, authority, machines))

    def _file(self) -> Path:
        return Path(json.loads(self._home.ssh_trust.read_bytes())["file"])

    def _program(self) -> str:
        words = [sys.executable, "-I", "-m", "muster.cli.ssh_serve", str(self._home.path)]
        return (
            "#!/bin/sh\n"
            "# Made by `muster ssh trust`: machines of the fleet run it through sshd.\n"
            f"MUSTER_STATE={shlex.quote(self._home.state_folder)} exec {shlex.join(words)}\n"
        )

    def _line(self, fleet: str, authority: str, machines: Sequence[str]) -> str:
        # Where there is no other machine yet the line stays, for the first one to be added to it.
        names = ",".join(map(principal, machines)) or principal("nobody")
        return f'cert-authority,principals="{names}",restrict {authority} {_name(fleet)}'

    def _write(self, file: Path, fleet: str, line: str) -> None:
        """The file with this line in the place of ours, the last one where there was none."""
        before = _lines(file)
        after = [each for each in before if not _is_ours(each, fleet)]
        if line:
            at = next((n for n, each in enumerate(before) if _is_ours(each, fleet)), len(after))
            after.insert(at, line)
        if after != before:
            # Where it is a link, what it leads to is changed.
            target, text = file.resolve(), "".join(f"{each}\n" for each in after)
            mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
            write_file(target, text.encode("utf-8", "surrogateescape"), mode=mode)


def _name(fleet: str) -> str:
    return f"muster-fleet-{fleet}"


def _is_ours(line: str, fleet: str) -> bool:
    return line.startswith("cert-authority,") and line.endswith(f" {_name(fleet)}")


def _lines(file: Path) -> list[str]:
    try:
        with open(file, "rb") as opened:
            raw = opened.read(_BYTES_MAX + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unable(f"{file} cannot be read ({error.strerror})", error) from error
    if len(raw) > _BYTES_MAX:
        raise Conflict(f"{file} is too large for a list of keys: look what it is")
    # Not `splitlines`: what else that takes for the end of a line is a person's own.
    lines = raw.decode("utf-8", "surrogateescape").split("\n")
    return lines if lines[-1] else lines[:-1]
