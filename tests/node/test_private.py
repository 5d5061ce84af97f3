"""What a person keeps for themselves on a machine, and what the fleet hears of it."""

from typing import Any

import pytest
from tests.node.cores import Cores
from tests.node.test_memory import known
from tests.promise import proves

from muster.fleet.kinds import ORDER_TAKE, OrderTake
from muster.fleet.statement import args_hash, open_statement, veiled
from muster.log.fold import body_as
from muster.log.stream import FLEET

SALT = "0123456789abcdef" * 2


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio")
    made.link("hub", "studio")
    made.pass_ms(2_000)
    return made


def args(key: str, text: str, salt: str = SALT, **more: Any) -> dict[str, Any]:
    return {
        "key": key,
        "text": [text],
        "scope": "private",
        **({"salt": salt} if salt else {}),
        **more,
    }


def heard(world: Cores) -> bytes:
    """All that the fleet reads."""
    log = world["hub"].core.log
    entries = [e for s in log.streams() if s.scope == FLEET for e in log.slice(s, 0)]
    return b"\n".join(e.raw + (e.body or b"") for e in entries)


@proves("memory.private-is-veiled")
def test_the_fleet_reads_neither_the_key_nor_what_its_text_could_be_guessed_by(world):
    studio = world["studio"]
    said = args("canary-key", "1234")
    assert studio.order("remember", veiled("canary-key", SALT), said)["ok"]
    world.pass_ms(1_000)
    assert known(studio, "canary-key") == [("1234", "active", "person")]
    assert b"canary-key" not in heard(world)
    (took,) = (e for e in world["hub"].entries(ORDER_TAKE) if e.header.author == studio.id)
    statement = open_statement(
        body_as(took, OrderTake).statement.encode(), world["hub"].core.membership.fleet
    )
    assert statement.object == veiled("canary-key", SALT)
    for guess in (
        args("canary-key", "1234", ""),
        {**args("canary-key", "1234", ""), "text": "1234"},
    ):
        assert statement.args != args_hash(guess)


@proves("memory.private-is-veiled")
def test_an_order_is_veiled_by_its_own_salt_and_only_where_nobody_else_reads_what_it_is_about(
    world,
):
    studio = world["studio"]
    for object in ("a", veiled("a", "f" * 32), veiled("b", SALT)):
        assert studio.order("remember", object, args("a", "x"))["error"]["kind"] == "Denied"
    for salt in ("xy", "AB" * 16):
        answer = studio.order("remember", veiled("a", salt), args("a", "x", salt))
        assert "salt" in answer["error"]["text"]
    for scope in ("fleet", ""):
        answer = studio.order("remember", veiled("a", SALT), args("a", "x", scope=scope))
        assert "salt" in answer["error"]["text"]
    # As those of older commands are.
    assert studio.order("remember", "a", args("a", "x", ""))["ok"]
    assert known(studio, "a") == [("x", "active", "person")]


@proves("memory.private-is-veiled")
def test_a_refusal_of_what_is_private_names_it_to_nobody(world):
    studio = world["studio"]
    assert studio.order("remember", veiled("canary-key", SALT), args("canary-key", "x"))["ok"]
    again = "f" * 32
    answer = studio.order("remember", veiled("canary-key", again), args("canary-key", "y", again))
    assert "canary-key" in answer["error"]["text"]
    world.pass_ms(1_000)
    assert len(world["hub"].entries("order.deny")) == 1
    assert b"canary-key" not in heard(world)
