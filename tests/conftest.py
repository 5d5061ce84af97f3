"""Options and fixtures every test may use."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing of what it is for.
settings.register_profile("muster", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("muster")


@pytest.fixture(autouse=True)
def _umask_as_it_was() -> Iterator[None]:
    """A program of ours that runs inside a test narrows the umask of all tests after it."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard() -> None:
    """Where the tests run in the background of a shell it is ignored, by what they start, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _no_shell_is_asked() -> Iterator[None]:
    """What the login shell of whoever runs the tests does is no part of them, and takes its time."""
    before = os.environ.get("SHELL")
    os.environ["SHELL"] = "/bin/false"
    yield
    if before is None:
        del os.environ["SHELL"]
    else:
        os.environ["SHELL"] = before
