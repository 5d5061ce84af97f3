"""A program of the system, asked by a list of words and in bounded time."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

from muster.errors import Unreachable
from muster.limits import SERVICE_ANSWER_S

_SESSIONS: Final = "/run/user"


def there(program: str) -> bool:
    return shutil.which(program) is not None


def ask(
    argv: list[str], within_s: float = SERVICE_ANSWER_S, *, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """What it answers to this text. Raises: Unreachable where it does not."""
    try:
        return subprocess.run(
            argv, input=text, capture_output=True, text=True, errors="replace",
            timeout=within_s, check=False, env=_session(),
        )  # fmt: skip
    except OSError as error:
        return subprocess.CompletedProcess(argv, 127, "", f"{argv[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        raise Unreachable(f"`{' '.join(argv)}` gave no answer within {within_s:g} s") from None


def said(answer: subprocess.CompletedProcess[str]) -> str:
    """The first line of it, for a sentence."""
    lines = [each.strip() for each in (answer.stderr or answer.stdout).splitlines() if each.strip()]
    return lines[0].rstrip(".")[:200] if lines else f"exit code {answer.returncode}"


def _session() -> Mapping[str, str]:
    """Our environment, and where the person's own systemd listens.

    A shell that `su` or cron opened has no word of the session that is there.
    """
    own = f"{_SESSIONS}/{os.getuid()}"
    if "XDG_RUNTIME_DIR" in os.environ or not os.path.isdir(own):
        return os.environ
    return {**os.environ, "XDG_RUNTIME_DIR": own}
