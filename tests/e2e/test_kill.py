"""Eight rounds of killing; a hundred are `make kill`."""

import pytest

from tests.e2e import kill
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@proves("node.nothing-acknowledged-is-lost")
def test_a_fleet_that_is_killed_again_and_again_loses_nothing_it_acknowledged(capsys):
    code = kill.main(["--rounds", "8", "--seed", "20261120"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "8 rounds, nothing lost" in said
