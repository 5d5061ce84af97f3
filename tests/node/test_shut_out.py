"""A machine that was revoked learns it from whoever refuses it, and believes only the authority."""

import pytest
from tests.node.cores import Cores
from tests.promise import proves

from muster.errors import Denied
from muster.fleet.machine import Authority
from muster.fleet.record import sign_revocation
from muster.node.incarnations.own_incarnation import ShutOut


def revocation(world: Cores, key: str, *, by: Authority | None = None) -> str:
    return sign_revocation(
        by or world.authority, key=key, name="studio", of="machine", cuts={}, reason="stolen",
        issued_ms=world.now().wall_ms,
    ).decode()  # fmt: skip


@proves("node.revoked-learns-it")
def test_a_revoked_machine_is_told_by_the_document_and_shows_it():
    world = Cores("hub", "studio")
    studio = world["studio"]
    studio.core.settled = True
    studio.step(ShutOut(revocation(world, studio.id)))
    found = studio.call("status", {})["value"]
    assert found["revoked"]["reason"] == "stolen"
    states = {m["name"]: m["state"] for m in studio.call("machines", {})["value"]}
    assert states == {"hub": "away", "studio": "revoked"}
    size = studio.own_size
    studio.step(ShutOut(revocation(world, studio.id)))
    world.pass_ms(2_000)
    assert studio.own_size == size, "once is enough"


@proves("node.revoked-learns-it")
def test_a_liar_shuts_nobody_out():
    world = Cores("hub", "studio")
    studio = world["studio"]
    studio.core.settled = True
    size = studio.own_size
    forged = revocation(world, studio.id, by=Authority(b"m" * 32))
    about_another = revocation(world, world["hub"].id)
    for each in (forged, about_another, "", "{}", "\udcff", revocation(world, studio.id)[:-9]):
        studio.step(ShutOut(each))
    assert studio.call("status", {})["value"]["revoked"] is None
    assert studio.own_size == size


@proves("node.revoked-learns-it")
def test_whoever_refuses_a_revoked_machine_has_the_document_at_hand():
    world = Cores("hub", "studio")
    hub = world["hub"]
    args = {"name": "studio", "reason": "stolen"}
    assert hub.order("revoke", "studio", args)["ok"]
    document = hub.core.membership.revocation(world["studio"].id)
    with pytest.raises(Denied):
        hub.core.roster.machine(world["studio"].id)
    studio = world["studio"]
    studio.core.settled = True
    studio.step(ShutOut(document))
    assert studio.call("status", {})["value"]["revoked"]["reason"] == "stolen"
