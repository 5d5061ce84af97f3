"""What the verbs about work promise, on one core."""

import pytest
from tests.promise import proves

from muster.errors import Malformed
from muster.verbs.work import _moment

NOW_MS = 1_795_000_000_000


@proves("cli.a-moment-is-ago-or-a-date")
@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("10m", NOW_MS - 600_000),
        ("1h30m", NOW_MS - 5_400_000),
        ("2026-11-18T07:06:40", 1_794_985_600_000),
        ("2026-11-18T08:06:40+01:00", 1_794_985_600_000),
    ],
)
def test_a_past_moment_is_so_long_ago_or_a_date(text, at_ms):
    assert _moment(text, NOW_MS) == at_ms


@proves("cli.a-moment-is-ago-or-a-date")
@pytest.mark.parametrize("text", ["", "soon", "10", "m10", "2026-13-01"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(Malformed, match="is no time"):
        _moment(text, NOW_MS)
