"""The short form of the rogue for each build."""

import pytest

from tests.e2e.rogue import siege, wrong
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@proves("node.besieged-it-works-on")
def test_a_member_that_may_say_anything_over_real_links_stops_nobody_and_is_forgotten():
    found = siege(15.0, 3)
    assert found["said"] > 50, found
    assert wrong(found) == [], found
