"""What a system is told so that it runs a daemon: a unit of systemd, a plist of launchd.

Rule 1: the text is made of its arguments alone, so that every system's can be looked at on any.
Rule 2: nothing in a path or a variable means anything to the system: it is quoted as each wants it.
Rule 3: nothing here takes from an attempt what it has where a person started the daemon: no
option that hides files, forbids system calls or shuts out new rights.
"""

import plistlib
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple
from xml.parsers.expat import ExpatError

from muster.errors import Conflict, Denied, NotFound, Refused
from muster.limits import (
    SERVICE_AGAIN_ALWAYS_S,
    SERVICE_AGAIN_S,
    SERVICE_AGAIN_S_MAX,
    SERVICE_AGAIN_STEPS,
)

# What ends a daemon so is not over when it is started again: a person has to do something.
FINAL: Final = sorted({2, *(each.exit_code for each in (Refused, Denied, NotFound, Conflict))})
# A large log is looked through at a start; an agent gets fifteen seconds to end.
START_S: Final = 600
STOP_S: Final = 60
# No step takes longer than a second; a machine that swaps may need its time for one.
WATCHDOG_S: Final = 60
# Since this version a pause can grow.
GROWS_SINCE: Final = 254
_GROWING: Final = (
    f"RestartSteps={SERVICE_AGAIN_STEPS}",
    f"RestartMaxDelaySec={SERVICE_AGAIN_S_MAX}",
)


class Service(NamedTuple):
    """One daemon as the system runs it; `user` is whom it runs as, "" for the session's own."""

    name: str
    home: str
    argv: tuple[str, ...]
    fallen: tuple[str, ...]
    """What is run when it has ended."""
    env: Mapping[str, str]
    log: str
    user: str = ""


def systemd_unit(service: Service, version: int = GROWS_SINCE) -> str:
    """The unit; one with a `user` is the system's, every other one that user's own.

    `version` is that of the systemd which reads it: one that is older than the keys for a pause
    that grows would warn of them each time.
    """
    grows = version >= GROWS_SINCE
    system = bool(service.user)
    after = ["Wants=network-online.target", "After=network-online.target"] if system else []
    variables = [f"Environment={_quoted(f'{n}={v}')}" for n, v in sorted(service.env.items())]
    lines = [
        "# Written by `muster service install`, which writes it anew; `muster service remove`",
        "# takes it away. What is to stay different belongs into a drop-in (systemctl edit).",
        "[Unit]",
        f"Description=Muster, the machine in {_CONTROL.sub(' ', service.home).replace('%', '%%')}",
        *after,
        # It is never given up.
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        *([f"User={service.user}"] if system else []),
        f"ExecStart={_words(service.argv)}",
        "# It tells people of an end that is not over when the daemon is started again.",
        f"ExecStopPost=-{_words(service.fallen)}",
        *variables,
        "WorkingDirectory=/",
        "SyslogIdentifier=muster",
        "Restart=on-failure",
        f"RestartSec={SERVICE_AGAIN_S if grows else SERVICE_AGAIN_ALWAYS_S}",
        *(_GROWING if grows else ()),
        f"RestartPreventExitStatus={' '.join(map(str, FINAL))}",
        "# A daemon whose loop says nothing for so long hangs, and is started anew.",
        f"WatchdogSec={WATCHDOG_S}",
        "WatchdogSignal=SIGKILL",
        f"TimeoutStartSec={START_S}",
        f"TimeoutStopSec={STOP_S}",
        "# The daemon ends its attempts in order; what is left of them goes with it.",
        "KillMode=mixed",
        "# An attempt that takes too much memory is ended, not the daemon.",
        "OOMPolicy=continue",
        "# Each attempt gets a control group below the daemon's own.",
        "Delegate=yes",
        "UMask=0077",
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if system else 'default.target'}",
        "",
    ]
    return "\n".join(lines)


def _words(argv: Sequence[str]) -> str:
    return " ".join(_quoted(word).replace("$", "$$") for word in argv)


def launchd_plist(service: Service) -> bytes:
    """The agent of a person's session, or with a `user` the daemon of the system."""
    said: dict[str, Any] = {
        "Label": service.name,
        "ProgramArguments": list(service.argv),
        "EnvironmentVariables": dict(service.env),
        "WorkingDirectory": "/",
        "RunAtLoad": True,
        # Not where it ended as it was told to.
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": SERVICE_AGAIN_ALWAYS_S,
        "ExitTimeOut": STOP_S,
        "Umask": 0o077,
        "StandardOutPath": service.log,
        "StandardErrorPath": service.log,
    }
    if service.user:
        said["UserName"] = service.user
    return plistlib.dumps(said)


class Written(NamedTuple):
    """What a unit or a plist says that can become untrue: its program, and the daemon's PATH."""

    program: str
    path: str


def read(text: bytes) -> Written:
    """What was written before. Raises: ValueError where none of us wrote it."""
    if text.startswith(b"<?xml"):
        try:
            said = plistlib.loads(text)
            return Written(said["ProgramArguments"][0], said["EnvironmentVariables"]["PATH"])
        except (KeyError, IndexError, TypeError, ExpatError) as error:
            raise ValueError(str(error)) from error
    lines = text.decode(errors="replace")
    found = [re.search(pattern, lines, re.MULTILINE) for pattern in _WRITTEN]
    program, path = (_ESCAPED.sub(_plain, each[1]) if each else "" for each in found)
    if not program:
        raise ValueError("no ExecStart")
    return Written(program, path)


def home_of(text: bytes) -> str:
    """The home that a unit or a plist was written for, "" where it says none.

    Raises: ValueError where none of us wrote it.
    """
    if text.startswith(b"<?xml"):
        try:
            words = [str(word) for word in plistlib.loads(text)["ProgramArguments"]]
        except (KeyError, TypeError, ExpatError) as error:
            raise ValueError(str(error)) from error
    else:
        line = re.search("^ExecStart=(.*)$", text.decode(errors="replace"), re.MULTILINE)
        found = re.findall(f'"{_WORD}"', line[1]) if line else []
        words = [_ESCAPED.sub(_plain, word) for word in found]
    named = dict(pairwise(words))
    return named.get("--home", "")


def _plain(found: re.Match[str]) -> str:
    """What an escape stands for."""
    return chr(int(found[2], 16)) if found[2] else found[1] or found[3]


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPED: Final = re.compile(r'\\(["\\])|\\x([0-9a-f]{2})|([%$])\3')
_WORD: Final = r'((?:[^"\\]|\\.)*)'
_WRITTEN: Final = (f'^ExecStart="{_WORD}"', f'^Environment="PATH={_WORD}"$')


def _quoted(word: str) -> str:
    """A word as systemd reads it back: its quotes, backslashes and specifiers mean nothing."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    # A line that ended in a word would be followed by a line that somebody else wrote.
    whole = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped)
    return f'"{whole}"'
