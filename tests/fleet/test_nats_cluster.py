"""The authority's word of whose NATS servers are one, and every word that is not that."""

import pytest
from tests.fleet.world import AUTHORITY, BUILD, FLEET_ID, LAPTOP, OTHER_AUTHORITY, STUDIO
from tests.promise import proves

from muster.errors import Forged, Malformed
from muster.fleet.nats_cluster import open_servers, sign_servers
from muster.log import canon
from muster.log.keys import Signer

TOLD = "5e" * 32
CLUSTER = (STUDIO.machine, BUILD.machine, LAPTOP.machine)
WORD = sign_servers(AUTHORITY, CLUSTER, TOLD)


def word(
    signer: Signer = AUTHORITY.record, kind: str = "muster/nats/v1", **changes: object
) -> bytes:
    """As a stranger writes one."""
    good = canon.decode(WORD.split(b"\n")[1], "The word", size_max=4096)
    message = kind.encode() + b"\n" + canon.encode({**good, **changes})
    return message + b"\n" + signer.sign(message).hex().encode() + b"\n"


@proves("node.nats-cluster-told")
def test_the_authoritys_word_names_the_machines_in_one_order():
    assert open_servers(WORD, FLEET_ID, TOLD) == tuple(sorted(CLUSTER))
    assert sign_servers(AUTHORITY, CLUSTER[::-1], TOLD) == WORD == word()
    assert open_servers(sign_servers(AUTHORITY, (), TOLD), FLEET_ID, TOLD) == ()


@pytest.mark.parametrize("told", ["", TOLD[:-1], TOLD + "\n", TOLD.upper(), "ö"])
@proves("node.nats-cluster-told")
def test_it_makes_a_server_believe_nothing_else(told: str):
    with pytest.raises(Forged, match="not of what was told"):
        open_servers(WORD, FLEET_ID, told)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (word(BUILD.root), "not signed by the key it needs"),
        (word(BUILD.signer("statement")), "not signed by the key it needs"),
        (word(OTHER_AUTHORITY.record), "not signed by the key it needs"),
        (WORD.replace(BUILD.machine.encode(), b"0" * 64), "not signed by the key it needs"),
        (WORD[:-60] + bytes([WORD[-60] ^ 1]) + WORD[-59:], "not signed by the key it needs"),
        (sign_servers(OTHER_AUTHORITY, CLUSTER, TOLD), "belongs to another fleet"),
        (word(fleet=OTHER_AUTHORITY.fleet), "belongs to another fleet"),
    ],
)
@proves("node.nats-cluster-told", "fleet.other-fleet")
def test_whoever_passes_it_on_adds_no_machine_and_takes_none_away(raw: bytes, sentence: str):
    with pytest.raises(Forged, match=sentence):
        open_servers(raw, FLEET_ID, TOLD)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n\n\n",
        WORD[:-1],
        WORD + WORD,
        WORD.ljust(2049),
        word(kind="muster/record/v1"),
        word(machines=["studio"]),
        word(machines=[STUDIO.machine.upper()]),
        word(machines=None),
        word(told=TOLD[:-1]),
        word(more=1),
        word(machines=[f"{n:064x}" for n in range(30)]),
    ],
)
@proves("node.nats-cluster-told")
def test_what_is_no_such_word_or_too_long_for_one_is_not_read(raw: bytes):
    with pytest.raises(Malformed):
        open_servers(raw, FLEET_ID, TOLD)
