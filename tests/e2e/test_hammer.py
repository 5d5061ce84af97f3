"""The short form of the hammer; `python -m tests.e2e.hammer` is the long one."""

from pathlib import Path

import pytest

from tests.e2e.hammer import hammer
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@proves("context.nothing-is-lost")
def test_three_who_write_the_same_files_while_daemons_are_killed_lose_nothing(
    tmp_path: Path,
) -> None:
    outcome = hammer(tmp_path, writes=120, kill_every_s=4.0, seed="short")
    assert outcome.kills
    assert (outcome.lost, outcome.trouble) == ([], []), str(outcome)
