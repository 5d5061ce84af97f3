"""`@proves("log.some-promise")` names the promise of tests/requirements/ that a test proves."""

from typing import Any

import pytest


def proves(*promises: str) -> Any:
    """Mark a test with the ids of the promises it proves."""
    return pytest.mark.promise(*promises)
