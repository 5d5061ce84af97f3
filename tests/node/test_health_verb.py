"""What `muster health` says of a machine, and when it is not well."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import to_builtins
from tests.node.cores import Cores
from tests.promise import proves

from muster.cli import show
from muster.task.detector import Detector, Seen, Thresholds
from muster.verbs import health
from muster.verbs.client import Finding
from muster.verbs.declaration import Nothing


def looked(world: Cores, tmp_path: Any, *attempts: Any) -> Any:
    runs = SimpleNamespace(attempts=dict(enumerate(attempts)))
    daemon: Any = SimpleNamespace(
        core=world["hub"].core, effects=runs, home=SimpleNamespace(path=tmp_path)
    )
    call: Any = None
    return asyncio.run(health.look(daemon, call, Nothing()))


def shown(value: Any) -> tuple[int, str]:
    context: Any = SimpleNamespace(ask=lambda *_, **__: to_builtins(value), on="")
    said: Finding = health.health(context, Nothing())
    return said.code, show.text("health", said.value)


@proves("health.told-whole")
def test_a_machine_is_well_until_something_of_its_own_needs_a_person(tmp_path):
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world["hub"].submit(agent=["shell"], needs={"machine": "nobody"})
    world.pass_ms(90_000)
    found = looked(world, tmp_path)
    assert (found.ok, found.reasons, found.settled) == (True, [], True)
    assert (found.tasks.queued, found.tasks.oldest_s >= 89, found.tasks.running) == (1, True, 0)
    ((peer),) = found.peers
    assert (peer.name, peer.state, peer.lag, peer.seen_s) == ("studio", "up", 0, 0)
    assert shown(found) == (0, "hub is well: 0 running, 1 queued")
    core = world["hub"].core
    with core.store.transaction():
        core.incidents.open("disk", "critical", "the disk of hub is full")
        core.store.seal_dirty(core.membership.signer("seal"))
    found = looked(world, tmp_path)
    assert found.reasons == ["disk: the disk of hub is full"]
    code, text = shown(found)
    assert (code, text.splitlines()[1]) == (1, "  disk: the disk of hub is full")
    # What another machine tells of as well, and later, is ours all the same.
    for name in ("hub", "studio"):
        core = world[name].core
        core.when_done(lambda core=core: core.incidents.open("model:x", "warning", core.name))
        world[name].step()
        world.pass_ms(1_000)
    assert any(each.startswith("model:x: ") for each in looked(world, tmp_path).reasons)


@proves("health.told-whole")
@pytest.mark.parametrize(("s", "state"), [(10, "works"), (200, "quiet"), (310, "told")])
def test_an_agent_that_runs_is_shown_as_its_watch_sees_it(tmp_path, s, state):
    detector = Detector(Thresholds(), steers=True)
    detector.happened("agent.usage", {"input_tokens": 7})
    for at in range(0, s, 5):
        detector.look(at, Seen(0, False))
    attempt = SimpleNamespace(
        task="ab" * 16, agent="claude", watch=SimpleNamespace(detector=detector)
    )
    found = looked(Cores("hub"), tmp_path, attempt)
    (agent,) = found.agents
    assert (agent.name, agent.state, agent.tokens) == ("claude", state, 7)
    assert found.tasks.stalled == (state == "told")
    assert f"claude {state} on abababababab" in shown(found)[1]
