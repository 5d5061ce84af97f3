"""Options and fixtures every test may use."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _umask_as_it_was() -> Iterator[None]:
    """A program of ours that runs inside a test narrows the umask of all tests after it."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
