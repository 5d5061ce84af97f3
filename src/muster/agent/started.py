"""The program of an attempt, as the shim starts it: plainly, or inside the sandbox of its order.

Rule 1: an order with a sandbox is never started without it: what keeps it from being built is this
machine's fault, and said in one sentence.
Rule 2: our own driver stays outside, and encloses the agent's program itself (acp.py); what an
order took is given back by the shim, which outlives both.
Rule 3: only the standard library, because the shim imports this file on every start; what an order
without one does not need is not even imported.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from typing import Any, Final

from muster.agent import cgroup, process_tree
from muster.agent.driver import Driver

# The daemon's end of its socket for listeners, as the shim inherits it.
HANDOVER: Final = "handover"
SAID_BYTES_MAX: Final = 4096


class NotStartedError(Exception):
    """Nothing of the command ran. `fault` is what of this machine is at fault."""

    def __init__(self, text: str, fault: str) -> None:
        super().__init__(text)
        self.fault = fault


def start(
    driver: Driver, order: Mapping[str, Any], group: cgroup.Group | None
) -> subprocess.Popen[bytes]:
    """The running program, with pipes. Raises: NotStartedError."""
    sandbox: Mapping[str, Any] = order.get("sandbox") or {}
    if sandbox and not driver.is_ours:
        return _start_enclosed(driver, sandbox, group)
    handover = sandbox.get(HANDOVER)
    try:
        return _popen(
            driver,
            driver.argv,
            group,
            env=driver.env,
            cwd=driver.cwd,
            pass_fds=() if handover is None else (int(handover),),
        )
    except (OSError, ValueError) as error:
        raise NotStartedError(f"could not start: {error}", driver.fault_of_start) from error


def _start_enclosed(
    driver: Driver, sandbox: Mapping[str, Any], group: cgroup.Group | None
) -> subprocess.Popen[bytes]:
    from muster.agent.sandbox import enclosure  # noqa: PLC0415 - of no use to others
    from muster.agent.sandbox.profile import profile_of  # noqa: PLC0415
    from muster.errors import Broken, NotFound  # noqa: PLC0415

    child, handover = None, sandbox.get(HANDOVER)
    try:
        profile = profile_of(driver.cwd, sandbox)
        made = enclosure.Enclosure(profile, driver.argv, driver.env, handover)
        try:
            child = _popen(
                driver,
                made.argv,
                group,
                then=made.enter,
                env=made.env,
                cwd="/",
                pass_fds=made.handles,
            )
            made.confirm()
        finally:
            made.close()
    except (Broken, NotFound, OSError, ValueError) as error:
        said = b"" if child is None else _end(child)
        enclosure.release(driver.cwd, sandbox)
        fault = driver.fault_of_start if isinstance(error, NotFound) else "machine"
        text = f"could not start: {enclosure.explained(error, said)}"
        raise NotStartedError(text, fault) from error
    return child


def _popen(
    driver: Driver, argv: list[str], group: cgroup.Group | None, then: Any = None, **how: Any
) -> subprocess.Popen[bytes]:
    def between() -> None:
        process_tree.bind(group)
        if then is not None:
            then()

    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if driver.stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # Safe here: the shim has one thread.
        preexec_fn=between,  # noqa: PLW1509
        **how,
    )


def _end(child: subprocess.Popen[bytes]) -> bytes:
    """End what did not come to be; what it said of that."""
    child.kill()
    child.wait()
    # What was inside is ours now, where we are the subreaper, and ends by itself: its gate is shut.
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in process_tree.descendants(os.getpid(), process_tree.procfs_table()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.waitpid(-1, 0)
    said = b""
    if child.stderr is not None:
        os.set_blocking(child.stderr.fileno(), False)
        said = child.stderr.read(SAID_BYTES_MAX) or b""
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    return said


def release(cwd: str, sandbox: Mapping[str, Any], *, goes_on: bool = False) -> None:
    """Take back what an attempt was lent, once nothing of it runs; harmless when repeated.

    Where something `goes_on` it may write while owners change: then nothing counts as untouched.
    """
    if sandbox:
        if goes_on:
            sandbox = {**sandbox, "notes": ""}
        from muster.agent.sandbox import enclosure  # noqa: PLC0415 - of no use to others

        enclosure.release(cwd, sandbox)
