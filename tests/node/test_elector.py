"""What somebody wrote at a NATS server about a lease is read as what it is, and never believed."""

import pytest
from tests.promise import proves

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
from muster.channel.nats_lease import Leased
from muster.node.engine.elector import _said, _seen
from muster.task.election import Seen, Write


@proves("adopt.elected")
@pytest.mark.parametrize(
    "said",
    [
        b"", b"{", b"[]", b"[" * 1000, b"3", b'{"place":"3"}', b'{"place":true}', b'{"place":-1}',
        b'{"place":1e9}', b'{"place":%d}' % 2**53, b"\xff", b'{"place":7}' + b" " * 2000,
        b'{"place":' + b"9" * 1000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_word_of_ours_says_no_place(said):
    assert _seen(Leased(3, "x", said)) == Seen(3, "x", 0)


@proves("adopt.elected")
def test_a_place_is_read_as_it_was_written():
    assert _seen(Leased(3, "x", _said(Write(2, 1_790_000_000_000)))).place == 1_790_000_000_000
