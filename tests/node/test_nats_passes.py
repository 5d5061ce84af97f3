"""What lets a machine in at the NATS servers of others: who is asked for it, and whose counts."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.fleet.world import AUTHORITY, BUILD, LAPTOP, OTHER_AUTHORITY, STUDIO
from tests.promise import proves

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
from tests.node.nats_servers import RECORDS

from muster.channel.nats import PASS, REFUSED, Pass
from muster.errors import Denied, Malformed, NotFound
from muster.fleet.nats_cluster import sign_servers
from muster.fleet.roster import Roster
from muster.node.attempts import question
from muster.node.engine import passes
from muster.node.engine.passes import Passes

ME, PLACE, BESIDE = "a" * 64, STUDIO.machine, BUILD.machine
CLUSTER = (STUDIO.machine, BUILD.machine, LAPTOP.machine)
WORD = sign_servers(AUTHORITY, CLUSTER, "0" * 64).decode()
AWAY = {"ok": False, "error": {"kind": "Unreachable", "text": "studio gave no answer", "exit": 7}}


def given(word: str = WORD, server: str = "tls://10.0.0.2:4222") -> dict[str, Any]:
    return {"ok": True, "value": {"jwt": "a.b.c", "server": server, "more": [], "word": word}}


class World:
    """A machine that is let in nowhere yet, and what the others answer to it."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, others: int = 0) -> None:
        self.home, self.asked = home, list[str]()
        self.answers: dict[str, Any] = {}
        self.links = {*CLUSTER, *(f"{n:064x}" for n in range(others))}
        more = {f"{n:064x}": RECORDS[LAPTOP.machine] for n in range(others)}
        roster: Any = Roster.__new__(Roster)
        for name, value in (("fleet", AUTHORITY.fleet), ("machines", {**RECORDS, **more})):
            object.__setattr__(roster, name, value)
        find = {RECORDS[m].name: RECORDS[m] for m in CLUSTER}
        monkeypatch.setattr(Roster, "hubs", lambda _: ())
        monkeypatch.setattr(Roster, "find", lambda _, name: self._find(find, name))
        core = SimpleNamespace(
            machine=ME, roster=roster,
            membership=SimpleNamespace(name_of=lambda m: m[:6]),
            link_to=lambda m: 1 if m in self.links else None,
        )  # fmt: skip
        daemon: Any = SimpleNamespace(core=core, home=SimpleNamespace(path=str(home)))
        monkeypatch.setattr(question, "ask", self._ask)
        self.daemon = daemon
        self.passes = Passes(daemon)

    @staticmethod
    def _find(known: Any, name: str) -> Any:
        if name not in known:
            raise NotFound("no such machine")
        return known[name]

    async def _ask(self, _daemon: Any, machine: str, verb: str, args: Any) -> Any:
        assert (verb, args) == ("engine.pass", {})
        self.asked.append(machine)
        return self.answers.get(machine, AWAY)

    def ask(self) -> bool:
        self.asked.clear()
        return asyncio.run(self.passes._ask(RECORDS[PLACE].name))

    @property
    def shown(self) -> Pass | None:
        path = self.home / PASS
        return msgspec.json.decode(path.read_bytes(), type=Pass) if path.exists() else None


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@proves("node.nats-pass-of-any")
def test_a_new_machine_gets_in_while_the_one_that_is_named_is_away(world: World):
    world.answers[BESIDE] = given()
    assert world.ask()
    assert world.asked[0] == PLACE
    assert world.shown == Pass("a.b.c", "tls://10.0.0.2:4222")
    assert not (world.home / REFUSED).exists()


@proves("node.nats-pass-of-any")
def test_an_outdated_pass_is_replaced_by_who_served_beside_it(world: World):
    world.answers[PLACE] = given(server="tls://10.0.0.1:4222")
    assert world.ask()
    assert world.asked == [PLACE]
    del world.answers[PLACE]
    world.answers[LAPTOP.machine] = given(server="tls://10.0.0.3:4222")
    # Another start knows whose servers are one, too.
    world.passes = Passes(world.daemon)
    assert world.ask()
    assert set(world.asked) <= set(CLUSTER)
    assert world.shown == Pass("a.b.c", "tls://10.0.0.3:4222")


@pytest.mark.parametrize(
    "word",
    [
        "",
        "x",
        "ö" * 100,
        sign_servers(OTHER_AUTHORITY, CLUSTER, "0" * 64).decode(),
        sign_servers(AUTHORITY, (BUILD.machine, LAPTOP.machine, "f" * 64), "0" * 64).decode(),
        sign_servers(AUTHORITY, (STUDIO.machine, LAPTOP.machine, "f" * 64), "0" * 64).decode(),
    ],
)
@proves("node.nats-pass-of-any")
def test_a_machine_whose_server_is_none_of_that_cluster_gives_no_pass(world: World, word: str):
    world.answers[BESIDE] = given(word)
    with pytest.raises(Denied, match="not one with that of"):
        world.ask()
    assert world.shown is None
    assert (world.home / REFUSED).read_text() == "studio gave no answer"
    # It keeps nobody from who is one of them.
    world.answers[LAPTOP.machine] = given(server="tls://10.0.0.3:4222")
    assert world.ask()


@pytest.mark.parametrize(
    "value", [None, {}, {"jwt": "ö", "server": "x"}, given("x" * 5000)["value"]]
)
@proves("node.nats-pass-of-any")
def test_what_is_no_pass_keeps_nobody_from_the_next(world: World, value: Any):
    world.answers[PLACE] = {"ok": True, "value": value}
    with pytest.raises(Malformed, match="gave no pass"):
        world.ask()
    world.answers[BESIDE] = given()
    assert world.ask()


@proves("node.nats-pass-of-any")
def test_where_a_server_is_alone_nobody_else_is_asked(world: World):
    world.answers[PLACE] = given(word="", server="tls://10.0.0.1:4222")
    assert world.ask()
    del world.answers[PLACE]
    assert not world.ask()
    assert world.asked == [PLACE]


@proves("node.nats-pass-of-any")
def test_in_a_large_fleet_a_few_are_asked_at_a_time_and_all_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    world, asked = World(tmp_path, monkeypatch, others=50), set[str]()
    for _ in range(20):
        assert not world.ask()
        assert len(world.asked) <= 1 + passes._OTHERS_AT_ONCE
        asked.update(world.asked)
    assert asked == world.links
    world.links.remove(BESIDE)
    for _ in range(20):
        assert not world.ask()
        assert BESIDE not in world.asked


def word(machines: tuple[str, ...], stamp: int) -> str:
    return sign_servers(AUTHORITY, machines, "0" * 64, stamp).decode()


@pytest.mark.parametrize("restarts", [False, True])
@proves("node.nats-pass-newest")
def test_a_machine_that_was_taken_out_of_a_cluster_gives_no_pass_by_its_older_word(
    world: World, restarts: bool
):
    before, now = CLUSTER, (STUDIO.machine, BUILD.machine, "f" * 64)
    assert LAPTOP.machine not in now
    world.answers[PLACE] = given(word(now, 7), server="tls://10.0.0.1:4222")
    assert world.ask()
    # The one that is named is away, and who was taken out is all that is left.
    del world.answers[PLACE]
    world.answers[LAPTOP.machine] = given(word(before, 6), server="tls://10.0.0.3:4222")
    if restarts:
        world.passes = Passes(world.daemon)
    for _ in range(2):
        with pytest.raises(Denied, match="older word"):
            world.ask()
        assert world.shown == Pass("a.b.c", "tls://10.0.0.1:4222")
    # Nor by one under the very stamp.
    world.answers[LAPTOP.machine] = given(word(before, 7), server="tls://10.0.0.3:4222")
    with pytest.raises(Denied, match="older word"):
        world.ask()
    # Another of the same three that did not hear the newest one yet gives one, and the newest stays.
    world.answers[BESIDE] = given(word(now, 5), server="tls://10.0.0.2:4222")
    assert world.ask()
    assert world.shown == Pass("a.b.c", "tls://10.0.0.2:4222")
    assert (world.home / passes._WORD).read_text() == word(now, 7)


@proves("node.nats-pass-newest")
def test_the_one_that_is_named_replaces_no_newer_word_by_an_older_one_or_by_none_of_the_authority(
    world: World,
):
    now, newest = (
        (STUDIO.machine, BUILD.machine, "f" * 64),
        (STUDIO.machine, BUILD.machine, "e" * 64),
    )
    world.answers[PLACE] = given(word(now, 7), server="tls://10.0.0.1:4222")
    assert world.ask()
    world.answers[PLACE] = given(word(CLUSTER, 6), server="tls://10.0.0.3:4222")
    with pytest.raises(Denied, match="older word"):
        world.ask()
    world.answers[PLACE] = given("x", server="tls://10.0.0.1:4222")
    assert world.ask()
    assert (world.home / passes._WORD).read_text() == word(now, 7)
    # A newer one does, and so does a server that is alone now.
    for newer in (word(newest, 8), ""):
        world.answers[PLACE] = given(newer, server="tls://10.0.0.1:4222")
        assert world.ask()
        assert (world.home / passes._WORD).read_text() == newer
