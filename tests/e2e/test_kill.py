"""A short game of killing; the long one is `make kill`."""

import pytest

from tests.e2e import kill
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@proves("node.nothing-acknowledged-is-lost")
def test_a_fleet_that_is_killed_again_and_again_loses_nothing_it_acknowledged(capsys):
    code = kill.main(["--rounds", "3", "--seed", "20261120"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "3 rounds, nothing lost" in said
