"""`systemctl` and `loginctl` as far as Muster asks them, for systems that have none: it reads the
unit, runs its command with its variables and waits for the word of readiness, as systemd does.

Its state lies in $SCRIPTED_SYSTEMD: what was asked (`asked`), and for each unit its process. A file
`away` there makes it answer as in a container, `no-linger` refuses lingering; `units` names the
folder that a person's systemd reads where that is not the shell's, `said` what it says of a unit
(a property a line). The system's own units lie in $SCRIPTED_SYSTEM_UNITS.
"""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

STATE = Path(os.environ.get("SCRIPTED_SYSTEMD", ""))
SHELLS = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def units() -> Path:
    """Where the units lie that are asked about."""
    if "--user" not in sys.argv:
        return Path(os.environ["SCRIPTED_SYSTEM_UNITS"])
    told = STATE / "units"
    return Path(told.read_text()) if told.exists() else SHELLS


def put(folder: Path) -> dict[str, str]:
    """The programs and their state below this folder; the variables that make them be found."""
    bin, state = folder / "bin", folder / "systemd"
    bin.mkdir()
    state.mkdir()
    for name in ("systemctl", "loginctl"):
        (bin / name).write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        (bin / name).chmod(0o755)
    path = dict.fromkeys([str(bin), *os.environ["PATH"].split(os.pathsep)])
    return {"PATH": os.pathsep.join(path), "SCRIPTED_SYSTEMD": str(state)}


def main() -> int:
    program, words = sys.argv[1], [w for w in sys.argv[2:] if w != "--user"]
    with open(STATE / "asked", "a") as log:
        log.write(f"{program} {' '.join(sys.argv[2:])}\n")
    if (STATE / "away").exists():
        return refused("Failed to connect to bus: No such file or directory")
    if program == "loginctl":
        return linger(words)
    if words == ["--version"]:
        print("systemd 255 (255.4)")
        return 0
    units = [w for w in words if w.endswith(".service")]
    for unit in units or [""]:
        code = {"show": show, "restart": restart, "enable": enable, "disable": disable}.get(
            words[0], lambda _unit: 0
        )(unit)
        if code:
            return code
    return 0


def refused(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


def linger(words: list[str]) -> int:
    if words[0] == "show-user":
        print("yes" if (STATE / "linger").exists() else "no")
    elif (STATE / "no-linger").exists():
        return refused("Could not enable linger: Access denied")
    else:
        (STATE / "linger").touch()
    return 0


def show(unit: str) -> int:
    if not unit:
        # As a real one says it: what nothing survives in comes first.
        print(f"/run/user/0/systemd/transient {units()} /etc/systemd/user")
        return 0
    pid = process(unit)
    print(f"LoadState={'loaded' if (units() / unit).exists() else 'not-found'}")
    print(f"ActiveState={'active' if pid else 'inactive'}\nMainPID={pid}")
    print(f"UnitFileState={'enabled' if (STATE / f'{unit}.enabled').exists() else 'disabled'}")
    print(f"ActiveEnterTimestamp={'Thu 2026-11-26 20:00:00 UTC' if pid else ''}")
    if (STATE / "said").exists():
        print((STATE / "said").read_text())
    return 0


def process(unit: str) -> int:
    """The process of a unit, 0 where it has ended."""
    try:
        pid = int((STATE / f"{unit}.pid").read_text())
        # It is our child's child: what has ended is gone or a zombie.
        return 0 if " Z " in Path(f"/proc/{pid}/stat").read_text() else pid
    except (OSError, ValueError):
        return 0


def enable(unit: str) -> int:
    (STATE / f"{unit}.enabled").touch()
    return 0


def disable(unit: str) -> int:
    if not (units() / unit).exists():
        return refused(f"Failed to disable unit: Unit file {unit} does not exist.")
    (STATE / f"{unit}.enabled").unlink(missing_ok=True)
    return stop(unit)


def stop(unit: str) -> int:
    if pid := process(unit):
        os.kill(pid, signal.SIGTERM)
        while process(unit):
            time.sleep(0.02)
    return 0


def restart(unit: str) -> int:
    stop(unit)
    said = [
        line.partition("=")[::2]
        for line in (units() / unit).read_text().splitlines()
        if "=" in line and not line.startswith("#")
    ]
    (command,) = [value for name, value in said if name == "ExecStart"]
    words = [w.replace("$$", "$").replace("%%", "%") for w in shlex.split(command)]
    variables = dict(
        shlex.split(value)[0].replace("%%", "%").partition("=")[::2]
        for name, value in said
        if name == "Environment"
    )
    user = next((value for name, value in said if name == "User"), None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
        ears.bind(f"\0{STATE}")
        ears.settimeout(60)
        with open(STATE / "journal", "ab") as journal:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=journal, stderr=journal, cwd="/",
                env={"HOME": str(Path.home()), **variables, "NOTIFY_SOCKET": f"@{STATE}"},
                start_new_session=True, user=user,
            )  # fmt: skip
        (STATE / f"{unit}.pid").write_text(str(child.pid))
        ears.settimeout(0.1)
        while child.poll() is None:
            with contextlib.suppress(TimeoutError):
                if ears.recv(100) == b"READY=1":
                    child.returncode = 0
                    return 0
    return refused(f"Job for {unit} failed because the control process exited with error code.")


if __name__ == "__main__":
    sys.exit(main())
