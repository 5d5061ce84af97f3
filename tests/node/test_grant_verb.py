"""Grants as a person gives them: with an effect, to somebody who is meant, or not at all."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.node.cores import WALL_MS, Cores
from tests.promise import proves

from muster.errors import Denied, Malformed
from muster.fleet.grant import DELEGATE, Grant, agent_key, sign_give, sign_take
from muster.fleet.machine import Operator
from muster.verbs.grant import FLEET_VERBS, MACHINE_VERBS, OPERATORS_ONLY, check_right, key_verbs
from muster.verbs.table import VERBS

SPEC = Path(__file__).parents[2] / "docs" / "spec" / "identity.md"
BOB = Operator(b"bob".ljust(32))
DAY_MS = 86_400_000


def kind(answer: Any) -> str:
    return "ok" if answer["ok"] else str(answer["error"]["kind"])


def said(answer: Any) -> str:
    return str(answer["error"]["text"])


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "laptop", "edge")
    world.link("hub", "laptop")
    world.pass_ms(4_000)
    return world


def checked(world: Cores, to: str, verb: str, object: str = "*", **more: Any) -> Any:
    """What `muster grant` asks before anything is signed."""
    args = {"to": to, "verb": verb, "object": object, **more}
    return world["hub"].call("grant.check", args)


def given(world: Cores, to: str, verb: str, object: str = "*", days: int = 1) -> Any:
    """A grant that was signed as it is, by whatever command."""
    grant = Grant(object, to, WALL_MS + days * DAY_MS, verb)
    nonce = f"{to}{verb}{object}".encode()[:16].ljust(16)
    raw = sign_give(
        world.operator.statement, world.fleet, grant, nonce=nonce, issued_ms=WALL_MS - 2 * DAY_MS
    )
    shown = {"object": object, "to": to, "until_ms": grant.until_ms, "verb": verb}
    args = {"to": to, "verb": verb}
    options = {"grant": shown, "statement": raw.decode()}
    return world["hub"].order("grant", verb, args, options=options)


@proves("cli.grant-has-an-effect")
@pytest.mark.parametrize(
    ("to", "verb", "object", "why"),
    [
        ("shell@laptop", "run", "*", "capability"),
        ("laptop", "run", "*", "a machine has none"),
        ("role:mobile", "send", "*", "a machine has none"),
        (BOB.key, "status", "x", "no object"),
        (BOB.key, "*", "main", "nothing in common"),
        (BOB.key, "logs", "*", "inside the command"),
        (BOB.key, "beat", "*", "ask it of each other"),
        (BOB.key, "doubt.end", "*", "operator's own"),
        (BOB.key, "operator.add", "*", "operator's own"),
        ("alice", "run", "*", "everything already"),
    ],
)
def test_a_grant_without_effect_is_refused_with_the_reason_before_it_is_signed(
    world, to, verb, object, why
):
    answer = checked(world, to, verb, object)
    assert kind(answer) == "Refused"
    assert why in said(answer)
    assert kind(checked(world, to, verb, object, take=True)) == "ok", "what stands can be taken"


@proves("cli.grant-has-an-effect")
@pytest.mark.parametrize("object", ["a b", "ü", "x" * 201, ""])
def test_an_object_that_nothing_can_be_called_is_no_object_to_grant_or_to_order(object):
    with pytest.raises(Malformed, match="without spaces and accents"):
        check_right("run", object)


@proves("cli.grant-has-an-effect")
def test_a_grant_without_effect_that_somebody_signed_all_the_same_is_not_written(world):
    hub, laptop = world["hub"], world["laptop"].id
    for to, verb, object in (
        (agent_key("shell", laptop), "run", "*"), (laptop, "run", "*"), ("mobile", "run", "*"),
        (laptop, "cancel", "main"), (BOB.key, "doubt.end", "*"), (world.operator.key, "run", "*"),
    ):  # fmt: skip
        assert kind(given(world, to, verb, object)) == "Refused", (to, verb)
    assert kind(given(world, BOB.key, "run", days=-1)) == "Refused"
    assert not hub.entries("grant.give")
    assert not [g for g in hub.core.roster.grants if g.giver]


@proves("cli.grant-has-an-effect")
def test_every_grant_that_is_taken_lets_its_holder_do_what_it_says(world):
    """No verb of the list is one that a holder is refused: each is decided by this very grant."""
    hub, laptop = world["hub"].core, world["laptop"].id
    for verb in key_verbs():
        if not verb.startswith("grant"):
            assert kind(given(world, BOB.key, verb)) == "ok", verb
            assert hub.roster.decide(BOB.key, verb, "anything", WALL_MS)
    # What a machine hands on is within bounds, and looked at by itself (test_delegation_bounds.py).
    for verb in MACHINE_VERBS.keys() - {DELEGATE}:
        assert kind(given(world, laptop, verb)) == "ok"
        assert hub.roster.decide(laptop, verb, "*", WALL_MS)
        with pytest.raises(Denied):
            hub.roster.decide(world["edge"].id, verb, "*", WALL_MS)
    args = {"to": "all", "text": ["hi"]}
    statement = world.sign("send", "all", world["hub"], args, signer=BOB.statement)
    assert kind(world["hub"].call("send", args, statement=statement)) == "ok"


@proves("cli.grant-has-an-effect")
def test_what_only_an_operator_does_is_refused_to_whoever_was_granted_everything(world):
    """The list of what is an operator's own is not longer and not shorter than what the daemon says."""
    hub = world["hub"]
    assert kind(given(world, BOB.key, "*")) == "ok"
    calls = {
        "operator.add": {"name": "bob", "key": BOB.key},
        "device.add": {"machine": "laptop"}, "device.revoke": {"device": "laptop"},
        "doubt.end": {"doubt": "0" * 64},
        "machine.bind": {"name": "forge"}, "machine.rename": {"machine": "laptop", "binding": "x"},
        "machine.labels": {"add": ["gpu"], "take": [], "only": []},
        "machine.drain": {"by": "laptop"}, "machine.left": {"machine": "laptop"},
        "takeover": {"machine": world["laptop"].id},
        "standin": {"machine": world["laptop"].id, "by": "nobody", "after": "30s"},
        "peer.add": {"card": "peer1.x", "fleet": "0" * 64, "name": "acme"},
        "peer.remove": {"fleet": "0" * 64},
        "chat.link": {"service": "matrix", "days": 30}, "chat.unlink": {"account": "matrix:x"},
    }  # fmt: skip
    assert set(calls) == {v for v in OPERATORS_ONLY if v in VERBS}
    before = hub.own_size
    for verb, args in calls.items():
        object = args.get(VERBS[verb].object, "*")
        statement = world.sign(verb, object, hub, args, signer=BOB.statement)
        options = {}
        if verb.startswith("device"):
            raw = sign_take(
                BOB.statement, world.fleet, "0" * 64, nonce=verb.encode()[:16].ljust(16),
                issued_ms=WALL_MS,
            ).decode()  # fmt: skip
            terms = {
                "life_ms": 1, "machine": world["laptop"].id, "open_ms": 1, "ticket": "0" * 64,
                "rights": [{"verb": "run", "object": "*"}], "until_ms": 1,
            }  # fmt: skip
            own = {"terms": terms} if verb == "device.add" else {"id": "0" * 64}
            options = {"statement": raw, **own}
        answer = hub.call(verb, args, statement=statement, options=options)
        assert kind(answer) == "Denied", verb
        assert "only an operator" in said(answer)
    assert set(hub.core.roster.operators) == {world.operator.key}
    assert not hub.entries("device.open")
    assert hub.own_size == before + len(calls), "a refusal each, and nothing else"


# --- who is meant -----------------------------------------------------------------------------------


@proves("cli.grant-whom")
def test_a_word_that_is_a_machine_and_a_role_is_refused_with_what_to_type(world):
    answer = checked(world, "edge", "push")
    assert kind(answer) == "Conflict"
    assert "`role:edge`" in said(answer)
    assert "`machine:edge`" in said(answer)
    assert checked(world, "role:edge", "push")["value"]["grantee"] == "edge"
    assert checked(world, "machine:edge", "push")["value"]["grantee"] == world["edge"].id
    assert checked(world, "role:mobile", "push")["value"]["grantee"] == "mobile"
    assert checked(world, "mobile", "push")["value"]["grantee"] == "mobile"
    assert checked(world, f"key:{BOB.key}", "run")["value"]["grantee"] == BOB.key


@proves("cli.grant-whom")
def test_a_key_that_signs_no_orders_is_refused(world):
    laptop = world["laptop"]
    assert kind(checked(world, laptop.identity.keys["git"], "run")) == "Refused"
    assert kind(checked(world, laptop.identity.keys["statement"], "run")) == "ok"
    assert kind(checked(world, "nobody", "run")) == "NotFound"
    assert kind(checked(world, "machine:nobody", "push")) == "NotFound"
    assert kind(checked(world, "role:nobody", "push")) == "NotFound"
    assert world["hub"].order("revoke", "laptop", {"name": "laptop"})["ok"]
    assert kind(checked(world, laptop.identity.keys["statement"], "run")) == "Denied"
    assert kind(checked(world, "machine:laptop", "push")) == "Conflict"


@proves("cli.grants-listed")
def test_grants_are_listed_in_words_and_one_that_is_taken_no_more(world):
    hub = world["hub"]
    assert kind(given(world, BOB.key, "run", "nightly")) == "ok"
    assert kind(given(world, world["laptop"].id, "push")) == "ok"
    listed = {(g["to"], g["verb"]): g for g in hub.call("grants", {})["value"]["grants"]}
    assert set(listed) == {(BOB.key, "run"), ("laptop", "push")}
    assert listed[BOB.key, "run"]["object"] == "nightly"
    assert {g["by"] for g in listed.values()} == {"alice"}
    assert {g["no_effect"] for g in listed.values()} == {""}
    (held,) = checked(world, "machine:laptop", "push", take=True)["value"]["held"]
    raw = sign_take(
        world.operator.statement, world.fleet, held, nonce=b"t" * 16, issued_ms=WALL_MS
    ).decode()
    args = {"to": "laptop", "verb": "push", "take": True}
    assert hub.order("grant", "push", args, options={"id": held, "statement": raw})["ok"]
    assert [g["verb"] for g in hub.call("grants", {})["value"]["grants"]] == ["run"]
    world.ms += 2 * DAY_MS
    (ended,) = hub.call("grants", {})["value"]["grants"]
    assert ended["no_effect"] == "it has ended"


@proves("cli.grants-listed")
def test_what_can_be_granted_is_listed_and_the_document_agrees(world):
    table = world["hub"].call("grants", {"verbs": True})["value"]["verbs"]
    assert {v["verb"] for v in table} == {*key_verbs(), *MACHINE_VERBS, *FLEET_VERBS}
    for each in table:
        check_right(each["verb"], "*", each["to"])
        if each["verb"] != "grant" and each["object"]:
            check_right(each["verb"], "x", each["to"])
    rows = re.findall(r"^\| ([a-z ,]*) ?\| `([a-z.]+)` \|", SPEC.read_text(), flags=re.MULTILINE)
    named = {verb for _, verb in rows[[v for _, v in rows].index("push") :]}
    assert set(MACHINE_VERBS) <= named
    assert all(f"| `{verb}` |" in SPEC.read_text() for verb in FLEET_VERBS)
    assert {"task", "run", "grant"} <= named
    for verb in OPERATORS_ONLY - {"grant.give", "grant.take"}:
        assert f"`{verb}`" in SPEC.read_text()
