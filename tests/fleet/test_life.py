"""The word of a process that it lives: signed by the machine that it names, for its own fleet."""

import pytest
from tests.fleet.world import BUILD, FLEET_ID, OTHER_AUTHORITY, STUDIO
from tests.promise import proves

from muster.errors import Forged, Malformed, Refused
from muster.fleet.life import NOBODY, open_life, sign_life

MINE, OTHER = "1" * 32, "2" * 32


@proves("node.copies-are-told")
def test_a_word_of_a_process_is_of_its_own_machine_and_names_whom_it_knows_of():
    raw = sign_life(BUILD, FLEET_ID, MINE, beside=OTHER, number=7)
    found = open_life(raw, FLEET_ID)
    assert (found.machine, found.life, found.beside) == (BUILD.machine, MINE, OTHER)
    assert found.number == 7
    first = open_life(sign_life(BUILD, FLEET_ID, MINE), FLEET_ID)
    assert (first.beside, first.number) == (NOBODY, 0)
    # Another machine's name under one's own key, another fleet, another word.
    theirs = sign_life(STUDIO, FLEET_ID, MINE).split(b"\n")
    moved = b"\n".join([*raw.split(b"\n")[:2], *theirs[2:]])
    for forged in (moved, raw.replace(MINE.encode(), OTHER.encode()), raw.replace(b":7}", b":8}")):
        assert forged != raw
        assert open_refused(forged) is Forged
    with pytest.raises(Forged, match="another fleet"):
        open_life(raw, OTHER_AUTHORITY.fleet)
    for raw_ in (b"", raw[:-1], raw * 2, b"[" * 100_000):
        assert open_refused(raw_) is Malformed
    for life in ("", "1" * 31, "X" * 32):
        assert open_refused(sign_life(BUILD, FLEET_ID, life)) is Malformed


def open_refused(raw: bytes) -> type[Refused]:
    with pytest.raises(Refused) as refused:
        open_life(raw, FLEET_ID)
    return refused.type
