"""Whom a worker believes to have a repository: code is run that comes from there."""

import msgspec

from muster.channel.frame import Type
from muster.fleet import kinds
from muster.fleet.facts import Facts
from muster.fleet.grant import Grant
from muster.log import canon
from muster.node import event as ev
from muster.node.incarnations.own_incarnation import FactsChanged
from tests.fleet.world import BUILD, HOUR, STUDIO, give
from tests.promise import proves
from tests.security.peer import Peer
from tests.security.target import MEMBER, Target


@proves("fleet.repository-keeper")
def test_a_machine_that_only_says_it_has_a_repository_is_not_asked_for_it() -> None:
    target, peer = Target(), Peer()
    facts = Facts("linux", "x86_64", cpus=2, memory_mib=4096, repositories=("main",))
    peer.write(kinds.MACHINE_FACTS, canon.encode(msgspec.to_builtins(facts)))
    target.frame(MEMBER, Type.SEGMENT, peer.segment(0))
    roster, now_ms = target.core.roster, target.now.wall_ms
    assert "main" in roster.facts[BUILD.machine].repositories
    assert roster.keeper("main", now_ms) is None


@proves("fleet.repository-keeper")
def test_a_granted_machine_keeps_it_until_a_hub_does() -> None:
    target, peer = Target(), Peer()
    facts = Facts("linux", "x86_64", cpus=2, memory_mib=4096, repositories=("main", "other"))
    peer.write(kinds.MACHINE_FACTS, canon.encode(msgspec.to_builtins(facts)))
    target.frame(MEMBER, Type.SEGMENT, peer.segment(0))
    grant = give(Grant("main", BUILD.machine, target.now.wall_ms + HOUR, "repo"))
    with target.store.transaction():
        target.core.append(kinds.GRANT_GIVE, canon.encode(msgspec.to_builtins(grant)))
        target.store.seal_dirty(target.core.membership.signer("seal"))
    target.step(ev.Tick())
    found = target.core.roster.keeper("main", target.now.wall_ms)
    assert found is not None
    assert found.machine == BUILD.machine
    assert target.core.roster.keeper("other", target.now.wall_ms) is None
    assert target.core.roster.keeper("main", target.now.wall_ms + 2 * HOUR) is None
    target.step(FactsChanged(msgspec.to_builtins(facts)))
    found = target.core.roster.keeper("main", target.now.wall_ms)
    assert found is not None
    assert found.machine == STUDIO.machine
