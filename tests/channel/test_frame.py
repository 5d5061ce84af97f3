"""The frame codec: exact bytes, and no byte string that surprises it."""

import contextlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves

from muster.channel.frame import (
    CHANNEL_ID_MAX,
    Frame,
    Type,
    decode,
    encode,
    farewell,
    prefixed,
    read_length,
    short_reason,
)
from muster.errors import Malformed
from muster.limits import CLOSE_REASON_BYTES_MAX, FRAME_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX


@proves("channel.frame-codec")
def test_the_bytes_of_a_frame_are_those_of_the_spec() -> None:
    assert encode(Type.SEGMENT, 0x01020304, b"abc") == bytes(
        [
            1,  # version
            4,  # type: segment
            *(1, 2, 3, 4),  # channel id, big-endian
            *b"abc",  # payload
        ]
    )
    assert [(kind.name, kind.value) for kind in Type] == [
        ("HELLO", 1),
        ("OFFER", 2),
        ("WANT", 3),
        ("SEGMENT", 4),
        ("COSIGN", 5),
        ("CALL", 6),
        ("REPLY", 7),
        ("DATA", 8),
        ("CREDIT", 9),
        ("CLOSE", 10),
    ]


@proves("channel.frame-codec")
@given(st.sampled_from(Type), st.integers(0, CHANNEL_ID_MAX), st.binary(max_size=4096))
def test_what_was_encoded_decodes_to_the_same(kind: Type, channel: int, payload: bytes) -> None:
    assert decode(encode(kind, channel, payload)) == Frame(kind, channel, payload)


@proves("channel.frame-codec")
@given(st.binary(max_size=64) | st.binary(max_size=32).map(lambda tail: b"\x01\x05" + tail))
def test_any_bytes_decode_to_a_frame_or_are_malformed(raw: bytes) -> None:
    with contextlib.suppress(Malformed):
        frame = decode(raw)
        assert encode(*frame) == raw


@proves("channel.frame-codec")
@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "6 to"),
        (b"\x01\x01\0\0\0", "6 to"),
        (b"\x02\x01\0\0\0\0", "version 2"),
        (b"\x01\x00\0\0\0\0", "unknown type 0"),
        (b"\x01\x0b\0\0\0\0", "unknown type 11"),
        (b"GET / HTTP/1.1", "version 71"),
        (bytes(FRAME_BYTES_MAX + 1), "6 to"),
    ],
)
def test_what_is_no_frame_is_refused_with_its_reason(raw: bytes, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        decode(raw)


@proves("channel.oversize-refused")
def test_an_oversize_payload_or_channel_id_is_not_encoded() -> None:
    assert len(encode(Type.DATA, CHANNEL_ID_MAX, bytes(FRAME_PAYLOAD_BYTES_MAX))) == FRAME_BYTES_MAX
    with pytest.raises(Malformed, match="split it"):
        encode(Type.DATA, 0, bytes(FRAME_PAYLOAD_BYTES_MAX + 1))
    for channel in (-1, CHANNEL_ID_MAX + 1):
        with pytest.raises(Malformed, match="32 bits"):
            encode(Type.DATA, channel, b"")


@proves("channel.frame-codec")
@given(st.binary(max_size=200))
def test_a_stream_announces_each_frame_and_the_farewell(body: bytes) -> None:
    raw = prefixed(body)
    assert read_length(raw[:4]) == (len(body), False)
    assert raw[4:] == body
    last = farewell(body.decode(errors="replace"))
    assert read_length(last[:4]) == (len(last) - 4, True)


@proves("channel.oversize-refused")
@pytest.mark.parametrize("word", [FRAME_BYTES_MAX + 1, 0x7FFF_FFFF, 0x8000_0000 | 124])
def test_an_announced_oversize_is_refused_before_it_is_read(word: int) -> None:
    with pytest.raises(Malformed, match="over the"):
        read_length(word.to_bytes(4, "big"))


@given(st.text())
def test_a_reason_always_fits_and_is_a_beginning(reason: str) -> None:
    short = short_reason(reason)
    assert reason.startswith(short)
    assert len(short.encode()) <= CLOSE_REASON_BYTES_MAX


@proves("channel.light-import")
def test_the_frame_codec_and_the_client_import_nothing_heavy() -> None:
    code = (
        "import sys; import muster.channel.ipc_client, muster.channel.frame;"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "muster" in loaded
    assert not loaded & {
        "msgspec",
        "asyncio",
        "ssl",
        "websockets",
        "uvloop",
        "cryptography",
        "nacl",
    }
