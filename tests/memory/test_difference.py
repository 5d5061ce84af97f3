"""What changed between two texts."""

import random

from tests.promise import proves

from muster.memory.difference import difference


@proves("memory.as-it-was")
def test_the_lines_that_went_and_came_are_told_with_those_around_them():
    assert difference("a\nb\nc\nd\ne\nf\ng", "a\nb\nc\nX\ne\nf\ng") == [
        "…", "  b", "  c", "- d", "+ X", "  e", "  f", "…",
    ]  # fmt: skip
    assert difference("", "one\ntwo") == ["+ one", "+ two"]
    assert difference("one", "") == ["- one"]
    assert difference("one", "one") == []


@proves("memory.as-it-was")
def test_both_texts_are_made_again_of_what_is_told_of_them():
    draw = random.Random(3)
    for _ in range(300):
        old, new = (
            "\n".join(draw.choice("abc-+ ") for _ in range(draw.randint(1, 8))) for _ in "on"
        )
        told = [line for line in difference(old, f"{new}\nend") if line != "…"]
        for text, sign in ((old, "-"), (f"{new}\nend", "+")):
            side = [line[2:] for line in told if line[0] in (" ", sign)]
            assert "\n".join(side) in text
        assert len(told) >= 1


@proves("memory.as-it-was")
def test_what_is_too_much_to_compare_is_told_whole():
    draw = random.Random(3)
    old, new = ("\n".join(draw.choice("ab") for _ in range(8_000)) for _ in "on")
    told = difference(f"x\n{old}\nx", f"y\n{new}\ny")
    assert [line[2:] for line in told if line[0] == "-"] == ["x", *old.split("\n"), "x"]
    assert [line[2:] for line in told if line[0] == "+"] == ["y", *new.split("\n"), "y"]
