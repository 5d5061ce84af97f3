"""Questions about what a hostile member wrote: each is answered, with what can be read."""

import json
from typing import Any

import pytest

from muster.cli import show
from muster.limits import ANSWER_BYTES_MAX, CALL_BYTES_MAX
from muster.log import canon
from muster.log.stream import FLEET, scope_group, scope_to
from muster.message import kinds
from muster.node.incarnations.own_incarnation import FactsChanged
from tests.node.cores import Cores, One
from tests.promise import proves

# In JSON each of these takes six bytes: as long as a body can make an answer.
LONG = "\x01" * 10_000


def write(one: One, kind: str, body: bytes, scope: Any = FLEET, **more: Any) -> Any:
    """An entry that our own program would not write."""
    with one.core.store.transaction():
        one.core.now = one.world.now()
        entry = one.core.append(kind, body, scope=scope, **more)
        one.core.store.seal_dirty(one.core.membership.signer("seal"))
    return entry


def pushed(world: Cores) -> None:
    world.pass_ms(4_000)


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "bad")
    made.link("hub", "bad")
    made.pass_ms(4_000)
    return made


@proves("cli.questions-total")
def test_lists_of_the_longest_messages_are_cut_and_say_so(world):
    hub, bad = world["hub"], world["bad"]
    assert hub.order("thread", "team", {"name": "team", "add": ["bad"], "remove": []})["ok"]
    world.pass_ms(500)
    group = scope_group(hub.id, "team")
    for n in range(120):
        for scope, to in ((scope_to(hub.id), [hub.id]), (group, ["all"])):
            body = canon.encode(kinds.MessageSend(to, f"{n} {LONG}"))
            write(bad, "message.send", body, scope)
        world.pass_ms(200)
    pushed(world)
    for verb, args, newest in (
        ("inbox", {"all": True}, True), ("inbox", {}, False),
        ("threads", {"name": "team"}, True), ("threads", {}, True),
    ):  # fmt: skip
        hub.answers.clear()
        value = hub.call(verb, args)["value"]
        size = len(json.dumps(value))
        assert ANSWER_BYTES_MAX // 2 < size < CALL_BYTES_MAX, (verb, size)
        found = value if verb == "inbox" else value[0]["messages"]
        numbers = [int(m["text"].split()[0]) for m in found]
        assert numbers == sorted(numbers)
        assert (numbers[-1] == 119) is newest
        assert any("note" in str(each.get("value")) for each in hub.answers), verb
        show.text(verb, value)


@proves("cli.questions-total")
def test_the_chain_of_a_task_shows_what_can_be_read_and_marks_the_rest(world):
    hub, bad = world["hub"], world["bad"]
    poison = [
        write(bad, "note.x", raw).id
        for raw in (b"\xff\xfe", b"[" * 9_000, b'{"a": 1}', b'"' + b"x" * 60_000 + b'"')
    ]
    chain: tuple[Any, ...] = ()
    for _ in range(90):
        chain = (write(bad, "note.x", canon.encode({"text": LONG}), cause=chain).id,)
    bad.step(FactsChanged(bad.facts(labels=("here",))))
    world.pass_ms(500)
    task = hub.submit(needs={"label": "here"}, agent=["shell"], do="sleep 100")
    world.pass_ms(500)
    row, started = hub.task(task), bad.entries("attempt.start")[-1]
    assert row.state == "leased"
    epoch = [row.epoch_order, row.epoch_count]
    causes = (*started.causes, started.id, *poison, *chain)
    end = {"epoch": epoch, "status": "done", "summary": "\u202e" * 10, "task": task}
    write(bad, "attempt.finish", canon.encode(end), cause=causes)
    pushed(world)
    for verb in ("explain", "why", "journal.where"):
        found = hub.call(verb, {"task": task})
        assert found["ok"], (verb, found)
        assert len(json.dumps(found["value"])) < CALL_BYTES_MAX
        show.text("audit" if verb == "explain" else verb,
                  {"explain": found["value"]} if verb == "explain" else found["value"])  # fmt: skip
    kinds_shown = [e["kind"] for e in hub.call("explain", {"task": task})["value"]["entries"]]
    assert {"task.open", "task.settle", "attempt.finish"} <= set(kinds_shown)
    bodies = [e["body"] for e in hub.call("explain", {"task": task})["value"]["entries"]]
    assert sum("unreadable" in b for b in bodies if isinstance(b, dict)) == 3
    assert sum("left out" in b for b in bodies if isinstance(b, dict)) > 10


@pytest.mark.parametrize(
    "statement",
    [
        "muster/x/v1\n5\nsigned", "muster/x/v1\n[1]\nsigned", "muster/x/v1\nnull\nsigned",
        "muster/x/v1\n" + "[" * 60_000 + "\nsigned", "muster/x/v1\n{}", "muster/", "", 7, None, ["x"], "ff" * 40,
        "6d75737465722f" * 3,
    ],
)  # fmt: skip
@proves("cli.questions-total")
def test_what_claims_to_be_a_signed_document_is_shown_as_the_text_it_is(statement):
    entry = {
        "id": "ab" * 32, "kind": "note.x", "machine": "bad", "actor": "muster", "t_ms": 1, "seq": 1,
        "causes": [], "held_by": [], "body": {"statement": statement, "record": statement},
    }  # fmt: skip
    task = {"task": "cd" * 16, "state": "done", "summary": ""}
    shown = show.text("audit", {"explain": {"task": task, "entries": [entry], "claims": []}})
    assert "statement:" in shown
