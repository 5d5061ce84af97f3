"""Version ranges, against what tools really print."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves

from muster.errors import Malformed
from muster.task.version import check_range, in_range, version_of


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("git version 2.43.0", (2, 43, 0)),
        ("v20.11.1", (20, 11, 1)),
        ("Python 3.12.0rc1", (3, 12, 0)),
        ("OpenSSL 1.1.1w  11 Sep 2023", (1, 1, 1)),
        ("Docker version 24.0.7-ce, build afdd53b", (24, 0, 7)),
        ("go version go1.22 linux/amd64", (1, 22)),
        ("GNU Make 4.3", (4, 3)),
        ("no number", None),
        ("", None),
    ],
)
def test_a_version_is_found_in_what_a_tool_prints(text, version):
    assert version_of(text) == version


@proves("task.tool-versions")
@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("3.11.2", ">=3.11,<4", True),
        ("3.10.9", ">=3.11,<4", False),
        ("4.0", ">=3.11,<4", False),
        ("3.11", "==3.11.0", True),
        ("3.9.1", "3.x", True),
        ("4.0", "3.x", False),
        ("3.11.7", "3.11", True),
        ("3.110.0", "3.11", False),
        ("18.2.0", "!=18.2", False),
        ("18.2.1", "!=18.2.x", False),
        ("18.3.0", "!=18.2.x", True),
        ("3.12", "~=3.11", True),
        ("4.0", "~=3.11", False),
        ("3.11.4", "~=3.11.2", True),
        ("3.12.0", "~=3.11.2", False),
        ("v20.1.0", " >= v20 , < 21 ", True),
        ("anything", "*", True),
        ("", "", True),
        ("unknown", ">=1", False),
        ("3.10", ">3.9", True),
    ],
)
def test_ranges_mean_what_people_mean(version, wanted, fits):
    assert in_range(version, wanted) is fits


@pytest.mark.parametrize("bad", [">=", ">= 3 4", "three", ">=3.x", "~3", "3,,4", "=>3", "3" * 200])
def test_what_is_no_range_is_refused(bad):
    with pytest.raises(Malformed):
        check_range(bad)


@given(st.text(max_size=60), st.text(max_size=30))
def test_any_text_is_answered(version, wanted):
    with suppress(Malformed):
        assert in_range(version, wanted) in {True, False}


parts = st.lists(st.integers(0, 99), min_size=1, max_size=4)


@given(parts, parts)
def test_order_is_total(a, b):
    left, right = (".".join(map(str, p)) for p in (a, b))
    answers = [in_range(left, sign + right) for sign in ("<", "==", ">")]
    assert answers.count(True) == 1
    assert in_range(left, ">=" + right) is not answers[0]
