"""Ending a conflict, going back, and how much may be written down."""

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.node.test_erasure import forget, remember, state
from tests.node.test_memory import write
from tests.node.test_sessions import opened, said
from tests.promise import proves

from muster import errors
from muster.errors import Conflict, NotFound, Refused
from muster.limits import MEMORY_RECORDS_MAX, MEMORY_WRITES_PER_ATTEMPT_MAX
from muster.log.stream import FLEET
from muster.memory.kinds import PINNED, MemoryPut
from muster.node.services import quotas
from muster.node.services.quotas import Quotas
from muster.verbs import memory, resolve


class Typed:
    """The command of a person on one of the machines."""

    on = ""

    def __init__(self, one: One) -> None:
        self._one = one

    def ask(self, verb: str, args: dict[str, Any], *, on: str = "") -> Any:
        assert on == ""
        ordered = verb == "remember"
        answer = self._one.order(verb, args["key"], args) if ordered else self._one.call(verb, args)
        if answer["ok"]:
            return answer["value"]
        raise getattr(errors, answer["error"]["kind"])(answer["error"]["text"])


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(3_000)
    return world


def apart(world: Cores, key: str, *texts: str, over: str = "") -> list[str]:
    """What the machines wrote while they were cut off from each other."""
    more = {"over": [over]} if over else {}
    world.cut("studio")
    found = [
        remember(world[name], key, text, **more)
        for name, text in zip(("hub", "studio"), texts, strict=True)
    ]
    world.link("hub", "studio")
    world.pass_ms(2_000)
    assert state(world["hub"], key) == state(world["studio"], key) == {"conflict"}
    return found


def end(one: One, key: str, **ask: Any) -> memory.Remembered:
    return resolve.resolve(Typed(one), resolve.Resolve(key=key, **ask))  # type: ignore[arg-type]


def back(one: One, key: str, **ask: Any) -> memory.Remembered:
    return resolve.undo(Typed(one), resolve.Undo(key=key, **ask))  # type: ignore[arg-type]


def shown(one: One, key: str) -> list[tuple[str, str, str]]:
    value = one.call("memory", {"key": key})["value"]
    return [(each["text"], each["state"], each["trust"]) for each in value]


@proves("memory.conflicts-are-ended")
def test_a_conflict_that_one_machine_ends_is_ended_on_both(world):
    one, two = apart(world, "main/port", "it is 7447", "it is 7450")
    orders = [shown(world[name], "main/port") for name in ("hub", "studio")]
    assert orders[0] == orders[1], "both texts, in the same order"
    assert {text for text, _, _ in orders[0]} == {"it is 7447", "it is 7450"}
    answer = end(world["studio"], "main/port", take=two[:12])
    assert answer.state == "active"
    world.pass_ms(500)
    for one_machine in world.machines.values():
        assert shown(one_machine, "main/port") == [("it is 7450", "active", "person")]
    assert one != two
    with pytest.raises(Refused, match="nothing to end"):
        end(world["hub"], "main/port", take=two[:12])


@proves("memory.conflicts-are-ended")
def test_what_changed_other_lines_is_merged_and_what_changed_the_same_is_refused(world):
    base = remember(world["hub"], "notes", "one\ntwo\nthree\nfour\nfive")
    world.pass_ms(500)
    apart(world, "notes", "1\ntwo\nthree\nfour\nfive", "one\ntwo\nthree\nfour\n5", over=base)
    end(world["hub"], "notes", merge=True)
    world.pass_ms(500)
    for one in world.machines.values():
        assert shown(one, "notes") == [("1\ntwo\nthree\nfour\n5", "active", "person")]
    first = remember(world["hub"], "port", "it is 7447")
    world.pass_ms(500)
    apart(world, "port", "it is 7450", "it is 8443", over=first)
    before = world["hub"].own_size
    with pytest.raises(Conflict, match="the same lines"):
        end(world["hub"], "port", merge=True)
    assert world["hub"].own_size == before, "nothing was written"
    apart(world, "unrelated", "one", "two")
    with pytest.raises(Conflict, match="not made of one version"):
        end(world["hub"], "unrelated", merge=True)
    assert end(world["hub"], "unrelated", text="three").state == "active"


@proves("memory.conflicts-are-ended")
def test_a_dispute_is_ended_by_what_is_over_the_refutation_as_well(world):
    hub = world["hub"]
    first = remember(hub, "build", "pass --no-lto")
    core = world["studio"].core
    world.pass_ms(500)
    with core.store.transaction():
        core.now = world.now()
        core.append_body(
            memory.MemoryRefute("build", [first], "gone in 2.0"), actor="claude@studio"
        )
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)
    world.pass_ms(500)
    assert state(hub, "build") == {"disputed"}
    assert end(hub, "build", take=first[:12]).state == "active"
    world.pass_ms(500)
    assert shown(world["studio"], "build") == [("pass --no-lto", "active", "person")]


@proves("memory.conflicts-are-ended")
def test_undo_says_again_what_was_replaced_or_a_version_that_is_named(world):
    hub = world["hub"]
    one = remember(hub, "port", "it is 1", tag=["repo:main"])
    two = remember(hub, "port", "it is 2", over=[one])
    three = remember(hub, "port", "it is 3", over=[two])
    assert back(hub, "port").state == "active"
    assert shown(hub, "port") == [("it is 2", "active", "person")]
    back(hub, "port", to=one[:12])
    (known,) = hub.call("memory", {"key": "port"})["value"]
    assert (known["text"], known["tags"]) == ("it is 1", ["repo:main"])
    assert len(hub.call("memory", {"key": "port", "history": True})["value"]) == 5
    forget(hub, three)
    with pytest.raises(Refused, match="erased"):
        back(hub, "port", to=three[:12])
    remember(hub, "alone", "x")
    with pytest.raises(NotFound, match="no other text"):
        back(hub, "alone")
    wrong = remember(hub, "flag", "pass --no-lto")
    assert hub.order("refute", wrong, {"version": wrong, "reason": ["no"]})["ok"]
    assert state(hub, "flag") == {"refuted"}
    assert back(hub, "flag").state == "active", "its writer has read the refutation"


@pytest.mark.parametrize(
    ("ask", "error", "word"),
    [
        ({}, errors.Malformed, "give one"),
        ({"take": "3fa9c1", "merge": True}, errors.Malformed, "give one"),
        ({"take": "3f"}, NotFound, "6 digits"),
        ({"take": "3fa9c1d2"}, NotFound, "none of the texts"),
        ({"text": "x", "scope": "private"}, NotFound, "nothing is known"),
    ],
)
def test_what_ends_nothing_is_refused(world, ask, error, word):
    apart(world, "k", "one", "two")
    with pytest.raises(error, match=word):
        end(world["hub"], "k", **ask)
    assert state(world["hub"], "k") == {"conflict"}


@proves("memory.scopes-do-not-leak")
def test_a_key_of_several_scopes_is_ended_in_the_one_that_is_named(world):
    hub = world["hub"]
    remember(hub, "k", "for all")
    remember(hub, "k", "mine", scope="private")
    with pytest.raises(Refused, match="several scopes"):
        back(hub, "k")
    with pytest.raises(NotFound, match="no other text"):
        back(hub, "k", scope="private")


# --- how much ---------------------------------------------------------------------------------


@proves("memory.quotas")
def test_an_attempt_writes_down_a_bounded_number_of_things(world):
    part = world["hub"].core.part(Quotas)
    one: Any = SimpleNamespace(task="aa", session="")
    other: Any = SimpleNamespace(task="bb", session="")
    person: Any = SimpleNamespace(task="", session="")
    for number in range(MEMORY_WRITES_PER_ATTEMPT_MAX):
        part.take(one, FLEET, f"k/{number}")
    with pytest.raises(Refused, match="join what belongs together"):
        part.take(one, FLEET, "one/more")
    part.take(other, FLEET, "k")
    for number in range(MEMORY_WRITES_PER_ATTEMPT_MAX + 1):
        part.take(person, FLEET, f"k/{number}")


@proves("memory.quotas")
def test_a_session_writes_down_a_bounded_number_of_things_in_an_hour(world):
    hub = world["hub"]
    one, other = opened(hub)["token"], opened(hub, own="0c1d")["token"]
    for number in range(MEMORY_WRITES_PER_ATTEMPT_MAX):
        assert said(hub, "remember", one, key=f"k/{number}", text=["x"])["ok"]
    refused = said(hub, "remember", one, key="one/more", text=["x"])["error"]["text"]
    assert "in one hour" in refused
    # Nor does another token of the same session help, nor to object instead.
    again = opened(hub)["token"]
    version = remember(hub, "mine", "y")
    assert not said(hub, "refute", again, version=version, reason=["no"])["ok"]
    assert said(hub, "remember", other, key="other", text=["x"])["ok"]
    world.pass_ms(3_600_000)
    assert said(hub, "remember", again, key="one/more", text=["x"])["ok"]


@proves("memory.quotas")
def test_all_sessions_of_a_machine_together_write_down_a_bounded_number_of_things(
    world, monkeypatch
):
    hub = world["hub"]
    monkeypatch.setattr(quotas, "MEMORY_WRITES_OF_SESSIONS_MAX", 6)
    part = hub.core.part(quotas.Quotas)
    monkeypatch.setattr(part, "_of_sessions", deque(maxlen=6))
    version = remember(hub, "mine", "y")
    tokens = [opened(hub, own=f"{number:04x}")["token"] for number in range(4)]
    for number in range(6):
        assert said(hub, "remember", tokens[number % 3], key=f"k/{number}", text=["x"])["ok"]
    # A session that wrote nothing yet has no more room than all of them.
    refused = said(hub, "remember", tokens[3], key="one/more", text=["x"])["error"]["text"]
    assert "may together: try again in 60 min" in refused
    assert not said(hub, "refute", tokens[3], version=version, reason=["no"])["ok"]
    # A person is not among them, and an hour later they are heard again.
    assert remember(hub, "a/persons", "z")
    world.pass_ms(3_600_000)
    assert said(hub, "remember", tokens[3], key="one/more", text=["x"])["ok"]


@proves("memory.quotas")
def test_an_import_fills_a_scope_no_further_and_says_which_notes_it_left(world, monkeypatch):
    hub = world["hub"]
    monkeypatch.setattr(quotas, "MEMORY_RECORDS_MAX", 4)
    notes = [{"key": f"k/{number}", "text": f"text {number}"} for number in range(6)]
    judged = hub.order("memory.import", "fleet", {"notes": notes, "scope": "fleet"})["value"]
    assert [each["fate"] for each in judged] == ["new"] * 4 + ["unfit"] * 2
    assert "no more than 4 may be" in judged[4]["why"]
    assert len(hub.entries("memory.put")) == 4
    # A key that is known in another scope is one more record in this one.
    remember(hub, "k/0", "mine", scope="private")
    remember(hub, "p", "only mine", scope="private")
    judged = hub.order(
        "memory.import", "fleet", {"notes": [{"key": "p", "text": "x"}], "scope": "fleet"}
    )["value"]
    assert [each["fate"] for each in judged] == ["unfit"]


@proves("memory.quotas")
def test_a_scope_has_a_bounded_number_of_records_and_is_warned_of_at_half(world, monkeypatch):
    hub = world["hub"]
    monkeypatch.setattr(quotas, "MEMORY_RECORDS_MAX", 4)
    assert MEMORY_RECORDS_MAX == 20_000
    first = remember(hub, "k/0", "text 0")
    assert not hub.core.incidents.is_open(quotas.HALF_FULL)
    remember(hub, "k/1", "text 1")
    hub.step()
    assert hub.core.incidents.is_open(quotas.HALF_FULL)
    remember(hub, "k/2", "text 2")
    remember(hub, "k/3", "text 3")
    refused = hub.order("remember", "k/4", {"key": "k/4", "text": ["text", "4"]})
    assert "no more than 4 may be" in refused["error"]["text"]
    # What is known is replaced all the same, and another scope has its own.
    remember(hub, "k/0", "text 5", over=[first])
    remember(hub, "mine", "x", scope="private")
    forget(hub, remember(hub, "mine2", "x", scope="private"))


@proves("memory.digest-quotes-data")
def test_whoever_goes_back_to_a_text_of_an_agent_makes_no_rule_of_it(world):
    """A machine that lets its agent say `pinned` would get a person's signature under it."""
    hub = world["hub"]
    write(world, "hub", MemoryPut("k", "run ./x.sh first", tags=[PINNED]))
    first = hub.call("memory", {"key": "k"})["value"][0]["version"]
    remember(hub, "k", "nothing first", over=[first])
    back(hub, "k", to=first[:12])
    (record,) = hub.call("memory", {"key": "k"})["value"]
    assert (record["text"], record["trust"]) == ("run ./x.sh first", "person")
    assert PINNED not in record["tags"]
