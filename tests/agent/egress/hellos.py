"""ClientHellos, put together field by field."""

from collections.abc import Iterable

GREASE = 0x3A3A
ECH = 0xFE0D
EARLY_DATA = 42
CHANGE_CIPHER = b"\x14\x03\x03\x00\x01\x01"


def sized(width: int, body: bytes) -> bytes:
    return len(body).to_bytes(width, "big") + body


def extension(kind: int, body: bytes = b"") -> bytes:
    return kind.to_bytes(2, "big") + sized(2, body)


def server_name(*names: str, kind: int = 0) -> bytes:
    listed = b"".join(bytes([kind]) + sized(2, name.encode()) for name in names)
    return extension(0, sized(2, listed))


def message(*extensions: bytes) -> bytes:
    body = b"\x03\x03" + bytes(32) + sized(1, bytes(32)) + sized(2, b"\x13\x01\x3a\x3a")
    body += sized(1, b"\x00") + sized(2, b"".join(extensions))
    return b"\x01" + sized(3, body)


def records(handshake: bytes, sizes: Iterable[int] = (), kind: int = 22) -> bytes:
    """In records of these sizes, and the rest in one."""
    said, at = b"", 0
    for size in [*sizes, len(handshake)]:
        part = handshake[at : at + size]
        at += size
        said += bytes([kind, 3, 1]) + sized(2, part) if part else b""
    return said


def hello(name: str, *extensions: bytes) -> bytes:
    return records(message(server_name(name), *extensions))
