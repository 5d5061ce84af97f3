"""Values that are too large for their entry."""

import pytest
from tests.promise import proves

from muster.errors import Malformed
from muster.limits import VALUE_BYTES_MAX
from muster.task.large_value import Large, parse, shown


@proves("spec.bounded-values")
@pytest.mark.parametrize(
    "large", [Large(5, "a" * 64), Large(VALUE_BYTES_MAX, "0" * 64), Large(10**12)]
)
def test_what_is_written_reads_the_same(large):
    assert parse(str(large)) == large


@proves("spec.bounded-values")
@pytest.mark.parametrize(
    "text",
    ["", "over:", "over:-1", "over:01", f"over:{10**15}", "blob:5", f"blob:{'A' * 64}:5",
     f"blob:{'a' * 63}:5", f"blob:{'a' * 64}:{VALUE_BYTES_MAX + 1}", f"blob:{'a' * 64}:5\n"],
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(Malformed):
        parse(text)


@proves("spec.bounded-values")
def test_what_people_see_of_it_is_its_end_with_a_mark():
    text = shown("ä" * 5_000 + "the end", 10_007)
    assert text.startswith("[the last 4096 of 10007 bytes]\nä")
    assert text.endswith("the end")
