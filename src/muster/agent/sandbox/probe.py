"""Whether this machine can enclose an attempt, found out by enclosing one that tries to get out.

Rule 1: what is said of a machine was seen on it: a version of bubblewrap proves nothing.
Rule 2: every probe has something outside that it would reach; what it reaches is named.
Rule 3: it blocks for some tenths of a second; whoever has a loop calls it in a thread. A program of
its own tries it, for what has threads cannot become another user between fork and exec.

The whole list is in tests/e2e/sandbox_probes.py; these are the ones that a kernel, a container or
another bubblewrap decides.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Final

from muster.agent.relay import boot
from muster.errors import Broken, NotFound

if TYPE_CHECKING:
    from muster.agent.sandbox.enclosure import Enclosure

_S_MAX: Final = 20.0
_ENDS: Final = "."
# Each line tells its words when it got out; at last the script says that it came so far.
_SCRIPT: Final = """
got() { echo "$1"; }
[ -e "$secret" ] && got "files of the machine are visible"
[ -r "/proc/1/root$secret" ] && got "files are visible through process 1"
[ -d "/proc/$outside" ] && grep -q muster.agent.sandbox.probe "/proc/$outside/cmdline" &&
  got "processes of the machine are visible"
tr '\\0' '\\n' </proc/1/environ | grep -q . && got "process 1 has an environment"
true 2>/dev/null >/usr/muster-probe && got "/usr can be written"
true 2>/dev/null >.git/hooks/muster-probe && got "hooks of a repository can be written"
true 2>/dev/null >>.git/config && got "settings of a repository can be written"
mv .git moved 2>/dev/null && got "a repository can be renamed"
true 2>/dev/null >.mcp.json && got "a protected file can be made"
[ "$(id -u)" = 0 ] && got "its program is root"
[ -w /proc/sys/kernel/core_pattern ] && got "settings of the kernel can be written"
status=$(cat /proc/self/status)
case $status in *"NoNewPrivs:	1"*) ;; *) got "its program may gain privileges";; esac
case $status in *"Seccomp:	2"*) ;; *) got "no filter of system calls is set";; esac
case $status in *"CapEff:	0000000000000000"*) ;; *) got "its program has capabilities";; esac
(unshare -U true) 2>/dev/null && got "it can make namespaces"
grep -qv -e '^ *lo:' -e '|' /proc/net/dev && got "it has a network"
[ "$(cat kept 2>/dev/null)" = kept ] || got "its work folder is not there"
echo x >made 2>/dev/null || got "its work folder cannot be written"
echo .
"""


def probe(program: str, user: int) -> str:
    """Why attempts cannot be enclosed with this bubblewrap, in one sentence; "" where they can.

    `user` is as whom they run where the daemon is root, else 0.
    """
    if sys.platform != "linux":
        return "attempts are enclosed on Linux only"
    argv = [*boot("muster.agent.sandbox.probe", "-S"), program, str(user)]
    try:
        ran = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=2 * _S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the sandbox could not be tried: {error}"
    said = ran.stdout.decode("utf-8", "replace").strip()
    if ran.returncode != 0:
        last = ran.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"the sandbox could not be tried: {''.join(last)[:300]}"
    return said


def main() -> None:
    """Try it, as the arguments say; what is said is why it cannot be."""
    program, user = sys.argv[1], int(sys.argv[2])
    top = tempfile.mkdtemp(prefix="muster-probe-")
    try:
        why = _probed(top, program, user)
    except (Broken, NotFound) as error:
        why = str(error)
    except OSError as error:
        why = f"the sandbox could not be tried: {error}"
    finally:
        shutil.rmtree(top, ignore_errors=True)
    sys.stdout.write(why)


def _probed(top: str, program: str, user: int) -> str:
    # Not at the top: these are Linux's, and whoever asks may run elsewhere.
    from muster.agent.sandbox.enclosure import Enclosure, release  # noqa: PLC0415
    from muster.agent.sandbox.profile import Profile  # noqa: PLC0415

    work, home, secret = f"{top}/work", f"{top}/home", f"{top}/secret"
    os.makedirs(f"{work}/.git/hooks")
    os.mkdir(home)
    texts = {f"{work}/.git/config": "[core]\n", f"{work}/kept": "kept", secret: "x"}
    for path, text in texts.items():
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}
    env |= {"secret": secret, "outside": str(os.getpid())}
    profile = Profile(cwd=work, program=program, home=home, user=user)
    try:
        said = _run(Enclosure(profile, ["/bin/sh", "-c", _SCRIPT], env))
    finally:
        release(work, {"program": program, "home": home, "user": user})
    *out, last = said.splitlines() or [""]
    if last != _ENDS:
        return "the sandbox was made, and its program could not work in it"
    return f"the sandbox does not hold: {'; '.join(out)}" if out else ""


def _run(made: "Enclosure") -> str:
    """What the script says. Raises: Broken, NotFound, OSError."""
    from muster.agent.sandbox.enclosure import explained  # noqa: PLC0415

    child = None
    try:
        child = subprocess.Popen(
            made.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=made.env,
            cwd="/",
            pass_fds=made.handles,
            preexec_fn=made.enter,  # noqa: PLW1509 - here is one thread
        )
        made.confirm()
        return child.communicate(timeout=_S_MAX)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired as error:
        raise Broken("the sandbox was made, and its program did not end in time") from error
    except (Broken, NotFound) as error:
        said = b""
        if child is not None:
            _kill(child)
            said = child.communicate()[1]
        raise Broken(explained(error, said)) from error
    finally:
        made.close()
        if child is not None:
            _kill(child)
            child.communicate()


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """With its group: what bubblewrap made a moment ago has not bound itself to it yet."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
