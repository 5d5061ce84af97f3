"""C2SP signed notes, against the specification's own examples."""

import contextlib
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves

from muster.errors import Malformed
from muster.limits import NOTE_BYTES_MAX
from muster.log import keys, note
from muster.log.keys import Signer

SIGNER = Signer(bytes(32))
SPEC_NAME = "example.com/foo"
SPEC_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n"
    "\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXm"
    "RKuwHjG1Yu72IneyaQM=\n"
).encode()
SPEC_KEY = b64decode(SPEC_VKEY.rsplit("+", 1)[1])[1:]
COSIGNED = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhc"
    "yv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3"
    "b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
).encode()


def holds(parsed: note.Note) -> bool:
    """Whether it is the specification's key that signed it."""
    line = parsed.signatures[0]
    id = note.key_id(SPEC_NAME, note.TYPE_ED25519, SPEC_KEY)
    signed = keys.verify(SPEC_KEY, parsed.text.encode(), line.data)
    return len(parsed.signatures) == 1 and line[:2] == (SPEC_NAME, id) and signed


@proves("log.note-c2sp")
def test_the_example_of_the_specification_verifies():
    parsed = note.parse(SPEC_NOTE)
    assert holds(parsed)
    assert note.encode(parsed) == SPEC_NOTE


@proves("log.note-c2sp")
def test_the_cosigned_example_of_the_specification_is_read_whole():
    parsed = note.parse(COSIGNED)
    log, witness = parsed.signatures
    assert log.name == "example.com/behind-the-sofa"
    assert len(log.data) == 64
    assert witness.name == "witness.example.com/w1"
    assert int.from_bytes(witness.data[:8], "big") == 1679315147
    assert note.encode(parsed) == COSIGNED


@proves("log.note-c2sp")
def test_a_text_with_empty_lines_ends_at_the_last_one():
    raw = note.sign("one\n\ntwo\n", "a", SIGNER)
    assert note.parse(raw).text == "one\n\ntwo\n"


@proves("log.note-strict")
@pytest.mark.parametrize(
    "respell",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"\n",
        lambda raw: raw.replace(b"\n\n", b"\n"),
        lambda raw: raw.replace("— ".encode(), b"- "),
        lambda raw: raw.replace(b"message.", b"message.\r"),
        lambda raw: raw.replace(b"message.", b"message.\t"),
        lambda raw: raw.replace(b"message.", b"\xff"),
        lambda raw: raw.replace(b" example.com/foo", b" example.com/f+o"),
        lambda raw: raw.replace(b" example.com/foo ", b"  "),
        lambda raw: raw.replace(b" example.com/foo ", " example.com/\u00a0foo ".encode()),
        lambda raw: raw.replace(b"yaQM=", b"yaQN="),
        lambda raw: raw.replace(b"yaQM=", b"yaQM"),
        lambda raw: raw.replace(b"yaQM=", b"ya QM="),
        lambda raw: raw[: raw.index(b"Uw2Q")] + b"Uw2QOg==\n",
        lambda raw: raw + raw.split(b"\n\n")[1] * 16,
        lambda raw: b"x" * NOTE_BYTES_MAX + raw,
    ],
)
def test_a_note_in_another_form_is_refused(respell):
    assert respell(SPEC_NOTE) != SPEC_NOTE
    with pytest.raises(Malformed):
        note.parse(respell(SPEC_NOTE))


@proves("log.note-strict")
@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_malformed(raw):
    with pytest.raises(Malformed):
        note.parse(raw)


@proves("log.note-strict")
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_refused_or_no_longer_verifies(place, change):
    raw = bytearray(SPEC_NOTE)
    raw[place % len(raw)] ^= change
    with contextlib.suppress(Malformed):
        assert not holds(note.parse(bytes(raw)))
