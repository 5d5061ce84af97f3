"""Which server a TLS client asks for."""

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.agent.egress import hellos
from tests.promise import proves
from tests.work import calls

from muster.agent.egress.client_hello import HELLO_BYTES_MAX, Opening
from muster.errors import Denied, Malformed


def heard(*parts: bytes, only: str = "") -> tuple[list[str], Opening]:
    """The names that an opening was checked for."""
    names: list[str] = []

    def check(name: str) -> None:
        names.append(name)
        if only and name != only:
            raise Denied(name)

    opening = Opening(check)
    for each in parts:
        opening.feed(each)
    return names, opening


def real(name: str) -> bytes:
    """What the TLS of this Python says first."""
    context = ssl.create_default_context()
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(into, out, server_hostname=name).do_handshake()
    return out.read()


@proves("egress.server-name")
def test_the_name_of_a_real_hello_is_found_at_once_and_byte_by_byte():
    said = real("api.example.com")
    for parts in ([said], [bytes([each]) for each in said]):
        names, opening = heard(*parts)
        assert names == ["api.example.com"]
        assert opening.whole
        assert not opening.over
    assert not heard(said[:-1])[1].whole


@proves("egress.server-name")
@given(st.data())
def test_however_it_is_cut_into_records_and_pieces_the_name_is_the_same(data):
    handshake = hellos.message(
        hellos.extension(hellos.GREASE),
        hellos.server_name("Allowed.test"),
        hellos.extension(43, b"\x02\x03\x04"),
    )
    sizes = data.draw(st.lists(st.integers(1, 60), max_size=30))
    said = hellos.records(handshake, sizes)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=20)))
    parts = [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    names, opening = heard(*parts)
    assert names == ["Allowed.test"]
    assert opening.whole


@proves("egress.server-name")
def test_a_hello_in_single_bytes_costs_no_more_than_its_length():
    long = hellos.message(hellos.server_name("a.test"), hellos.extension(21, bytes(4000)))
    said = hellos.records(long, [20] * len(long))

    def cost(size: int) -> int:
        opening = Opening(lambda _: None)
        return calls(lambda: [opening.feed(said[at : at + 1]) for at in range(size)])

    assert cost(4000) < 2.5 * cost(2000)


@proves("egress.server-name")
@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"GET / HTTP/1.1\r\n", "not TLS"),
        (b"SSH-2.0-x\r\n", "not TLS"),
        (b"\x80\x2e\x01\x03\x01", "not TLS"),
        (b"\x16\x02\x00", "not TLS"),
        (b"\x16\x03\x01\x00\x00", "length"),
        (b"\x16\x03\x01\xff\xff", "length"),
        (hellos.records(b"\x02" + bytes(40)), "no TLS hello"),
        (hellos.records(b"\x01\xff\xff\xff"), "too long"),
        (hellos.records(b"\x01" + hellos.sized(3, bytes(9))), "form"),
        (hellos.records(hellos.message()), "names no server"),
        (hellos.records(hellos.message(hellos.server_name(""))), "names no server"),
        (hellos.records(hellos.message(hellos.server_name("a.test", "b.test"))), "form"),
        (hellos.records(hellos.message(hellos.server_name("a.test", kind=1))), "form"),
        (hellos.records(hellos.message(hellos.server_name("ä.test"))), "form"),
        (hellos.records(hellos.message(*[hellos.server_name("a.test")] * 2)), "twice"),
        (hellos.hello("a.test", hellos.extension(hellos.ECH, bytes(9))), "ECH"),
        (hellos.hello("a.test", hellos.extension(0xFFCE, bytes(9))), "ECH"),
        (hellos.records(hellos.message(hellos.server_name("a.test")) + b"\x01"), "long"),
        (hellos.records(hellos.message(hellos.server_name("a.test"))[:-1] + b"\x01" * 2), "long"),
        (hellos.records(b"\x01" + hellos.sized(3, bytes(HELLO_BYTES_MAX))), "too long"),
        (hellos.records(b"\x01\x00\x30\x00" + bytes(9000), [1] * 9000), "pieces"),
    ],
)  # fmt: skip
def test_what_a_server_could_read_otherwise_is_refused(said, words):
    with pytest.raises(Malformed, match=words):
        heard(said)
    names: list[str] = []
    opening = Opening(names.append)
    with pytest.raises(Malformed, match=words):
        for each in said:
            opening.feed(bytes([each]))
    assert names == []
    assert not opening.whole


@proves("egress.server-name")
def test_what_makes_up_extensions_changes_nothing():
    names, _ = heard(hellos.hello("a.test", hellos.extension(hellos.GREASE, b"\0")))
    assert names == ["a.test"]


# --- a second hello ----------------------------------------------------------------------------

FIRST = hellos.hello("a.test")
EARLY = hellos.hello("a.test", hellos.extension(hellos.EARLY_DATA))
DATA = hellos.records(bytes(100), kind=23)
SECOND = hellos.hello("evil.test")
PIECES = hellos.records(hellos.message(hellos.server_name("evil.test")), [4, 1, 30])


@proves("egress.second-hello")
@pytest.mark.parametrize(
    "parts",
    [
        [FIRST, SECOND],
        [FIRST + SECOND],
        [FIRST, hellos.CHANGE_CIPHER, SECOND],
        [FIRST + hellos.CHANGE_CIPHER + PIECES],
        [EARLY, DATA * 3, SECOND],
        [EARLY + hellos.CHANGE_CIPHER + DATA, PIECES],
        [FIRST, hellos.records(b"\0\0", kind=21), SECOND],
    ],
)
def test_another_name_in_a_second_hello_is_refused(parts):
    with pytest.raises(Denied, match=r"evil\.test"):
        heard(*parts, only="a.test")
    with pytest.raises(Denied, match=r"evil\.test"):
        heard(*[bytes([each]) for each in b"".join(parts)], only="a.test")


@proves("egress.second-hello")
def test_what_could_still_be_a_second_hello_is_not_watched_for_ever():
    with pytest.raises(Malformed, match="pieces"):
        heard(EARLY, *[hellos.records(b"x", kind=23)] * 300)


@proves("egress.second-hello")
def test_a_second_hello_in_pieces_that_nobody_makes_is_refused():
    with pytest.raises(Malformed, match="pieces"):
        heard(FIRST, hellos.records(SECOND[5:], [1]))


@proves("egress.second-hello")
def test_the_same_name_again_goes_on_and_is_the_last():
    names, opening = heard(FIRST, hellos.CHANGE_CIPHER, FIRST, only="a.test")
    assert names == ["a.test", "a.test"]
    assert opening.over


@proves("egress.second-hello")
@pytest.mark.parametrize(
    "then",
    [
        DATA,
        hellos.records(b"\x10\x00\x00\x21" + bytes(33)),
        hellos.CHANGE_CIPHER + hellos.records(bytes(40)),
    ],
)
def test_where_no_hello_can_come_any_more_nothing_is_looked_at(then):
    _, opening = heard(FIRST, then)
    assert opening.over
    opening.feed(SECOND)
    opening.feed(b"anything")


@proves("egress.server-name")
@given(st.binary(max_size=400) | st.binary(max_size=300).map(lambda b: FIRST[:60] + b))
def test_no_bytes_raise_anything_else_or_pass_without_a_checked_name(said):
    names: list[str] = []
    opening = Opening(names.append)
    with contextlib.suppress(Malformed):
        opening.feed(said)
    assert not opening.whole or names
