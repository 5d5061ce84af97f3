"""Who carries out what the core wants done outside."""

import importlib
import pkgutil
from collections.abc import Iterable

import pytest
from tests.node.cores import Cores
from tests.promise import proves

import muster.node
from muster.errors import Broken
from muster.node import event as ev
from muster.node.attempts.effect_runner import EffectRunner
from muster.node.bridges import Bridges
from muster.node.call.streams import Streams
from muster.node.daemon import Daemon
from muster.node.engine.elector import Elector
from muster.node.folders.folders import Folders
from muster.node.incarnations.own_incarnation import OwnIncarnation
from muster.node.links.foreign import ForeignLinks
from muster.node.links.mend import Mends
from muster.node.links.paths import Cascade
from muster.node.links.peer_shelf import PeerShelf
from muster.node.links.posts import Mailboxes
from muster.node.links.wakers import Wakers
from muster.node.services.notifier import Notifier
from muster.node.services.scrubbing import Scrubbing
from muster.task.instruction import Effect


class _Sing(ev.Effect, frozen=True):
    """Nobody can."""


def _names(types: Iterable[type[Effect]]) -> set[str]:
    return {f"{each.__module__}.{each.__name__}" for each in types}


def _declared() -> set[str]:
    """Every type of effect in the product."""
    for module in pkgutil.walk_packages(muster.node.__path__, "muster.node."):
        importlib.import_module(module.name)
    return {name for name in _names(Effect.__subclasses__()) if name.startswith("muster.")}


def _hands() -> tuple[object, ...]:
    """What the daemon carries out with, none of it begun."""
    every = (
        Daemon, EffectRunner, Streams, Scrubbing, Folders, Cascade, Mailboxes, Mends, Wakers,
        ForeignLinks, Elector, PeerShelf, Notifier, Bridges,
    )  # fmt: skip
    return tuple(each.__new__(each) for each in every)


@proves("node.effects-have-hands")
def test_every_effect_belongs_to_a_part_and_the_daemon_carries_it_out():
    wants = Cores("hub")["hub"].core.wants
    assert _names(wants) == _declared()
    ev.handlers(wants, *_hands())


@proves("node.effects-have-hands")
def test_a_part_with_an_effect_that_nobody_carries_out_keeps_the_daemon_from_starting(monkeypatch):
    monkeypatch.setattr(OwnIncarnation, "effects", (*OwnIncarnation.effects, _Sing))
    wants = Cores("hub")["hub"].core.wants
    with pytest.raises(Broken, match="nobody on this machine carries out _Sing"):
        ev.handlers(wants, *_hands())
