"""What is known is found by its words, through real cores."""

import os
import random
from typing import Any

import pytest
from tests.node.cores import Cores, One, attempt_ended
from tests.node.test_memory import KEYS, act, remember
from tests.node.test_memory import write as written
from tests.node.test_showings import Agent
from tests.promise import proves

from muster.channel.frame import Type
from muster.errors import Broken
from muster.limits import INDEX_PAGE_ENTRIES, RECALL_BYTES_MAX
from muster.log import canon
from muster.memory.kinds import MemoryErase, MemoryPut, MemoryRefute
from muster.message.kinds import MessageSend
from muster.node import event as ev
from muster.node.services import documents, memory
from muster.node.services.erasure import Erasures
from muster.node.services.memory import Memory
from muster.node.services.search import Search
from muster.task.kinds import RunSettle, TaskDecide, TaskSettle


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(3_000)
    return world


def write(world: Cores, name: str, body: object, **more: Any) -> None:
    written(world, name, body, **more)
    world[name].core.tell(ev.Committed())


def asked(one: One, words: str, **more: Any) -> list[dict[str, Any]]:
    answer = one.call("recall", {"words": [words], **more})
    assert answer["ok"], answer
    return answer["value"]


def names(one: One, words: str, **more: Any) -> list[tuple[str, str]]:
    return [(each["name"], each["state"]) for each in asked(one, words, **more)]


def cursor(one: One) -> int:
    return one.core.part(Search).index.cursor


@proves("memory.found-by-words")
def test_who_wrote_it_finds_it_at_once_and_everybody_else_when_it_has_come(world):
    version = remember(world["hub"], "main/tests/where", "they are in tests/")["value"]["version"]
    (found,) = asked(world["hub"], "where do the tests live?")
    assert (found["id"], found["name"], found["state"]) == (version, "main/tests/where", "active")
    assert (found["rank"], found["from"], found["trust"]) == (2, "op:alice", "person")
    assert (found["text"], found["scope"], found["machine"]) == (
        "they are in tests/",
        "fleet",
        "hub",
    )
    world.pass_ms(500)
    (there,) = asked(world["studio"], "tests")
    assert there == found


@proves("memory.found-by-words")
def test_what_counts_is_found_and_what_does_not_only_where_it_is_asked_for(world):
    hub = world["hub"]
    first = remember(hub, "main/port", "the port is 7447")["value"]["version"]
    second = remember(hub, "main/port", "the port is 7450", over=[first])["value"]["version"]
    assert names(hub, "port 7447") == [("main/port", "active")]
    assert [each["id"] for each in asked(hub, "port 7447", all=True)] == [first, second]
    write(world, "hub", MemoryRefute("main/port", [second], "nobody listens there"))
    # A person's version is refuted by a person alone.
    assert names(hub, "port") == [("main/port", "disputed")]
    args = {"version": second[:8], "reason": ["gone"]}
    assert hub.order("refute", second[:8], args)["ok"]
    assert names(hub, "port") == []
    assert set(names(hub, "port", all=True)) == {
        ("main/port", "replaced"),
        ("main/port", "refuted"),
    }
    assert remember(hub, "other/port", "The port is 7450.")["value"]["state"] == "refuted"
    assert names(hub, "port") == []


@proves("memory.found-by-words")
def test_an_agents_version_over_a_persons_hides_it_from_nobody(world):
    rule = remember(world["hub"], "rule", "never force-push to main")["value"]["version"]
    write(world, "hub", MemoryPut("rule", "force-push as you like", [rule]))
    found = names(world["hub"], "force-push")
    assert found == [("rule", "conflict"), ("rule", "conflict")]


@proves("memory.found-by-words")
def test_it_is_asked_for_by_scope_tag_sort_and_number(world):
    hub = world["hub"]
    remember(hub, "a", "alpha one", tag=["repo:main"])
    remember(hub, "b", "alpha two", scope="private")
    remember(hub, "c", "alpha three", tag=["repo:main", "phase:build"])
    write(world, "hub", MessageSend(["all"], "alpha four", subject="news"))
    assert len(names(hub, "alpha")) == 4
    assert len(names(hub, "alpha", limit=2)) == 2
    assert names(hub, "alpha", scope="private") == [("b", "active")]
    assert names(hub, "alpha", of="message") == [("news", "said")]
    assert {name for name, _ in names(hub, "alpha", tag=["repo:main"])} == {"a", "c"}
    assert names(hub, "alpha", tag=["repo:main", "phase:build"]) == [("c", "active")]
    assert names(hub, "alpha", tag=["repo:mai"]) == []
    assert hub.call("recall", {"words": ["x"], "scope": "thread:no"})["error"]["kind"] == "NotFound"


@proves("memory.scopes-do-not-leak")
def test_nobody_finds_what_is_another_machines_alone(world):
    remember(world["hub"], "mine", "a canary sings", scope="private")
    world["hub"].order("send", "studio", {"to": "studio", "text": ["canary for one"]})
    world.pass_ms(1_000)
    assert len(asked(world["hub"], "canary")) == 2
    (found,) = asked(world["studio"], "canary")
    assert (found["sort"], found["scope"], found["from"]) == ("message", "direct", "op:alice")


@proves("memory.scopes-do-not-leak")
def test_whoever_left_a_thread_finds_nothing_of_it_any_more(world):
    hub, studio = world["hub"], world["studio"]
    assert hub.order("thread", "team", {"name": "team", "add": ["studio"]})["ok"]
    world.pass_ms(500)
    assert remember(hub, "plan", "a canary sings", scope="thread:team")["ok"]
    world.pass_ms(500)
    (found,) = asked(studio, "canary")
    assert found["scope"] == "thread:team"
    assert hub.order("thread", "team", {"name": "team", "remove": ["studio"]})["ok"]
    world.pass_ms(500)
    assert asked(studio, "canary") == []
    assert len(asked(hub, "canary")) == 1


@proves("memory.found-by-words")
def test_how_work_ended_is_found_where_its_owner_says_so(world):
    hub = world["hub"]
    task = hub.submit(agent=["shell"], do="true", check="true")
    world.pass_ms(3_000)
    row = hub.task(task)
    (worker,) = [each for each in world.machines.values() if each.id == row.machine]
    worker.step(attempt_ended(task, row.epoch, "done", "pass --no-lto to the linker"))
    world.pass_ms(2_000)
    assert hub.task(task).state == "done"
    (found,) = asked(world["studio"], "linker")
    assert (found["sort"], found["id"], found["state"]) == ("task", task, "done")
    # What others say about it in their own streams is found nowhere.
    write(world, "studio", TaskSettle(task, "failed", summary="the linker is broken"))
    write(world, "studio", RunSettle("r1", "done", "the linker is broken"))
    write(world, "studio", TaskDecide(task, "approve", "00", "use the linker"))
    world.pass_ms(500)
    for name in ("hub", "studio"):
        assert [each["id"] for each in asked(world[name], "linker", all=True)] == [task]


@proves("memory.index-forgets")
def test_what_is_erased_is_found_by_none_of_its_words(tmp_path):
    world = Cores("hub", "studio", folder=tmp_path)
    world.link("hub", "studio")
    world.pass_ms(3_000)
    hub = world["hub"]
    version = remember(hub, "k", "qqzzsecretword is the password")["value"]["version"]
    assert len(asked(hub, "qqzzsecretword")) == 1
    world.pass_ms(500)
    # Whoever may not erase it has it doubted, and no more.
    write(world, "studio", MemoryErase(version, key="k"))
    world.pass_ms(1_000)
    assert hub.core.part(Search).index.doubted(-1, 9) != []
    assert len(asked(hub, "qqzzsecretword")) == 1
    write(world, "hub", MemoryErase(version, key="k"))
    assert asked(hub, "qqzzsecretword", all=True) == []
    world.pass_ms(1_000)
    assert hub.core.part(Search).index.doubted(-1, 9) == []
    assert hub.core.part(Search).index.has_copies
    for name in ("hub.index.db", "hub.index.db-wal"):
        assert b"qqzzsecret" not in (tmp_path / name).read_bytes()
    hub.core.part(Search).index.make_anew()
    assert asked(hub, "qqzzsecretword password", all=True) == []


@proves("memory.index-is-derived")
def test_an_index_that_goes_is_made_anew_counted_and_gives_the_same_answers(tmp_path):
    world = Cores("hub", folder=tmp_path)
    world.pass_ms(1_000)
    hub, path = world["hub"], tmp_path / "hub.index.db"
    for number in range(30):
        write(world, "hub", MemoryPut(f"k{number}", f"alpha {number} beta"))
    wanted = asked(hub, "alpha", limit=50)
    world.pass_ms(500)
    assert hub.core.counters["index-made-anew-absent"] == 0
    path.unlink()
    assert asked(hub, "alpha", limit=50) == wanted
    assert hub.core.counters["index-made-anew-absent"] == 1
    os.truncate(path, 100)
    assert asked(hub, "alpha", limit=50) == wanted
    assert hub.core.counters["index-made-anew-cut-short"] == 1
    # What is damaged within is met by a question, or by what is written next.
    hub.core.part(Search).index.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(os.urandom(size - 4_096))
    assert asked(hub, "alpha", limit=50) == wanted
    assert hub.core.counters["index-made-anew-damaged"] >= 1


@proves("memory.index-is-derived")
def test_a_machine_goes_on_without_an_index_and_the_question_says_why(tmp_path):
    path = tmp_path / "hub.index.db"
    path.mkdir()
    world = Cores("hub", folder=tmp_path)
    hub = world["hub"]
    world.pass_ms(2_000)
    answer = hub.call("recall", {"words": ["alpha"]})
    assert answer["error"]["kind"] == "Broken"
    assert "move it away" in answer["error"]["text"]
    assert hub.core.counters["index-failed"] == 1
    assert not hub.core.part(Search).needs_tick
    assert remember(hub, "k", "alpha")["ok"]
    path.rmdir()
    assert names(hub, "alpha") == [("k", "active")]


@proves("memory.index-is-derived")
def test_an_index_of_a_log_that_fell_back_is_made_anew(tmp_path):
    world = Cores("hub", folder=tmp_path)
    world.pass_ms(1_000)
    hub = world["hub"]
    remember(hub, "a", "alpha")
    world.pass_ms(500)
    image = hub.core.store.image()
    remember(hub, "b", "alpha beta")
    world.pass_ms(500)
    hub.core.part(Search).index.close()
    hub.core.store.close()
    for each in tmp_path.glob("hub.db*"):
        each.unlink()
    (tmp_path / "hub.db").write_bytes(image)
    hub.boot()
    world.pass_ms(500)
    assert hub.core.counters["index-made-anew-other-log"] == 1
    assert names(hub, "alpha") == [("a", "active")]


@proves("memory.index-in-turns")
def test_much_that_came_is_taken_in_a_page_a_turn_and_others_are_answered_meanwhile(world):
    hub = world["hub"]
    core, pages = hub.core, 4
    with core.store.transaction():
        core.now = world.now()
        for number in range(pages * INDEX_PAGE_ENTRIES):
            core.append_body(MemoryPut(f"k{number}", f"alpha {number}"))
        core.store.seal_dirty(core.membership.signer("seal"))
    core.tell(ev.Committed())
    begun = cursor(hub)
    hub.answers.clear()
    call = canon.encode({"args": {"words": ["alpha 7"]}, "verb": "recall"})
    hub.step(ev.Arrived(1, Type.CALL, 9, call))
    steps = 0
    while not hub.answers:
        assert cursor(hub) - begun <= (steps + 1) * INDEX_PAGE_ENTRIES + 50
        hub.step(ev.Turn())
        steps += 1
    assert steps >= pages - 1
    assert hub.answers[-1]["value"][0]["name"] == "k7"


@proves("memory.index-in-turns")
def test_it_is_kept_up_by_ticks_and_then_wants_none(world):
    hub = world["hub"]
    write(world, "hub", MemoryPut("k", "alpha"))
    hub.core.tell(ev.Committed())
    assert hub.core.part(Search).needs_tick
    world.pass_ms(100)
    assert not hub.core.part(Search).needs_tick
    assert cursor(hub) == hub.core.log.admissions


@proves("memory.index-in-turns")
def test_only_what_is_committed_is_taken_in(world):
    hub = world["hub"]
    search = hub.core.part(Search)
    search.advance()
    before = cursor(hub)
    with pytest.raises(KeyError), hub.core.store.transaction():
        hub.core.append_body(MemoryPut("k", "alpha"))
        while search.advance():
            pass
        raise KeyError
    assert cursor(hub) == before
    assert names(hub, "alpha") == []


@proves("memory.questions-are-words")
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ([" "], "Malformed"), (["x" * (RECALL_BYTES_MAX + 1)], "Malformed"),
        (["word"] * 4_096, "Malformed"), (["word"] * 10_000, "Malformed"),
        (["x" * 1_000_000], "Malformed"), (["NEAR(alpha, 2"], ""), (['" OR *'], ""), (["the of"], ""),
    ],
)  # fmt: skip
def test_a_question_of_any_size_and_form_is_answered_or_refused_by_a_sentence(world, words, kind):
    answer = world["hub"].call("recall", {"words": words})
    assert answer.get("error", {}).get("kind", "") == kind, answer
    assert len(str(answer)) < 1_000


@proves("memory.shown-is-written-down", "memory.scopes-do-not-leak")
def test_what_an_agent_finds_is_the_whole_fleets_and_stands_in_the_journal(world):
    hub = world["hub"]
    version = remember(hub, "ours", "alpha for everybody")["value"]["version"]
    remember(hub, "mine", "alpha for nobody", scope="private")
    agent = Agent(hub)
    answer = agent.call("recall", words=["what", "is", "alpha"])
    assert [each["id"] for each in answer["value"]] == [version]
    (read,) = agent.showings()
    assert (read.why, read.versions, read.query) == ("recall", [version], "what is alpha")
    assert len(asked(hub, "alpha")) == 2
    assert len(agent.showings()) == 1


@proves("memory.index-is-derived")
def test_an_entry_that_nobody_can_read_is_passed_over_and_told(world, monkeypatch):
    hub = world["hub"]
    for target in ("", "no hex at all", "f" * 64, "é" * 64):
        core = hub.core
        with core.store.transaction():
            core.append("memory.erase", canon.encode({"target": target}))
            core.append("memory.put", b'{"key":"x","text":7}')
            core.append("message.send", b'{"text":"alpha"}')
            core.store.seal_dirty(core.membership.signer("seal"))
    write(world, "hub", MemoryPut("bad", "alpha one"))
    world.pass_ms(500)
    assert hub.core.counters["failed-index"] == 0
    assert names(hub, "alpha") == [("bad", "active")]
    kind, reader = documents._READERS["memory.put"]

    def mistaken(core, entry):
        if b"two" in entry.body:
            raise KeyError("a mistake of ours")
        return reader(core, entry)

    monkeypatch.setitem(documents._READERS, "memory.put", (kind, mistaken))
    for text in ("alpha two", "alpha three"):
        write(world, "hub", MemoryPut(text.split()[1], text))
    world.pass_ms(500)
    assert hub.core.counters["failed-index"] == 1
    assert {name for name, _ in names(hub, "alpha")} == {"bad", "three"}


@proves("memory.similar-is-told")
def test_who_writes_something_down_is_told_what_else_is_known_like_it(world):
    hub = world["hub"]
    first = remember(hub, "main/linker", "the linker needs the flag --no-lto")["value"]
    assert first["similar"] == []
    remember(hub, "main/colour", "the walls are green")
    wrong = remember(hub, "old/linker", "the linker flag is --fat-lto")["value"]["version"]
    assert hub.order("refute", wrong[:8], {"version": wrong[:8], "reason": ["no"]})["ok"]
    world.pass_ms(200)
    told = remember(hub, "build/linker", "pass --no-lto as a flag to the linker")["value"][
        "similar"
    ]
    assert [(each["key"], each["state"]) for each in told] == [
        ("main/linker", "active"), ("old/linker", "refuted")]  # fmt: skip
    assert "no-lto" in told[0]["text"]
    for number in range(6):
        remember(hub, f"k{number}", f"the linker flag number {number}")
    world.pass_ms(200)
    many = remember(hub, "last", "what the linker flag is")["value"]["similar"]
    assert [each["state"] for each in many] == ["active"] * 3 + ["refuted"]


@proves("memory.similar-is-told")
def test_an_agent_is_told_nothing_that_is_private_and_an_index_that_fails_keeps_nobody_from_writing(
    world, monkeypatch
):
    hub = world["hub"]
    remember(hub, "mine", "the canary sings in the linker flag", scope="private")
    world.pass_ms(200)
    agent = Agent(hub)
    assert agent.call("remember", key="a", text=["the", "linker", "flag"])["value"]["similar"] == []
    assert remember(hub, "b", "the linker flag sings")["value"]["similar"][0]["key"] == "mine"
    index = hub.core.part(Search).index

    def broken(*_args, **_more):
        raise Broken("the index is gone")

    monkeypatch.setattr(index, "find", broken)
    assert remember(hub, "c", "the linker flag again")["value"]["similar"] == []


@proves("memory.index-forgets")
def test_what_a_person_forgets_leaves_the_index_of_every_machine_and_its_disk(tmp_path):
    world = Cores("hub", "studio", folder=tmp_path)
    world.link("hub", "studio")
    world.pass_ms(3_000)
    hub, studio = world["hub"], world["studio"]
    version = remember(hub, "k", "qqzzsecretword is the password")["value"]["version"]
    remember(hub, "other", "alpha")
    world.pass_ms(1_000)
    for one in (hub, studio):
        assert len(asked(one, "qqzzsecretword")) == 1
    args = {"version": version[:12], "reason": "a slip"}
    answer = hub.order("forget", version[:12], args)
    assert answer["ok"], answer
    world.pass_ms(2_000)
    for one in (hub, studio):
        assert asked(one, "qqzzsecretword", all=True) == []
        assert names(one, "alpha") == [("other", "active")]
    for path in tmp_path.glob("*.index.db*"):
        assert b"qqzzsecret" not in path.read_bytes(), path


@proves("memory.index-forgets")
def test_what_came_after_its_erasure_and_counted_as_erased_only_later_leaves_the_index(
    tmp_path, monkeypatch
):
    world = Cores("hub", "studio", folder=tmp_path)
    hub, studio = world["hub"], world["studio"]
    world.link("hub", "studio")
    world.pass_ms(3_000)
    world.cut("studio")
    put = written(world, "studio", MemoryPut("k", "qqzzsecretword is the password"))
    with monkeypatch.context() as patched:
        # The order that proves it is not here yet.
        patched.setattr(memory, "is_ordered", lambda _core, _row: False)
        write(world, "hub", MemoryErase(put.id.hex(), key="k"), actor="op:alice", cause=(put.id,))
        world.pass_ms(500)
        world.link("hub", "studio")
        world.pass_ms(2_000)
        for one in (hub, studio):
            assert len(asked(one, "qqzzsecretword")) == 1
    monkeypatch.setattr(memory, "is_ordered", lambda _core, _row: True)
    for one in (hub, studio):
        one.core.part(Erasures)._look_through()
    world.pass_ms(2_000)
    for one in (hub, studio):
        assert one.core.log.entry(put.id).body is None
        assert asked(one, "qqzzsecretword", all=True) == []
    for path in tmp_path.glob("*.index.db*"):
        assert b"qqzzsecret" not in path.read_bytes(), path


@proves("memory.as-it-was")
def test_what_counted_at_a_moment_is_told_as_it_was_told_then():
    for seed in range(3):
        draw, world = random.Random(seed), Cores("hub", "studio", "build")
        for one, other in (("hub", "studio"), ("hub", "build"), ("studio", "build")):
            world.link(one, other)
        world.pass_ms(3_000)
        hub, memory = world["hub"], world["hub"].core.part(Memory)
        moments = []
        for _ in range(50):
            act(world, draw, erases=False)
            world.pass_ms(draw.choice((0, 100, 300)))
            told = {key: memory.records(key) for key in KEYS}
            moments.append((hub.core.log.admissions, told))
        for _ in hub.core.store.rebuild():
            pass
        for until, told in moments:
            assert {key: memory.records(key, until) for key in KEYS} == told


@proves("memory.as-it-was")
def test_a_question_about_a_moment_finds_what_counted_then(world):
    hub = world["hub"]
    world.pass_ms(60_000)
    first = remember(hub, "port", "the port is 7447")["value"]["version"]
    world.pass_ms(60_000)
    remember(hub, "port", "the port is 7450", over=[first])
    secret = remember(hub, "other", "a port that is forgotten")["value"]["version"]
    world.pass_ms(60_000)
    assert [each["text"] for each in asked(hub, "port 7447", at="90s")] == ["the port is 7447"]
    texts = {each["text"] for each in asked(hub, "port 7450", at="30s")}
    assert texts == {"the port is 7450", "a port that is forgotten"}
    assert asked(hub, "port", at="170s") == []
    assert hub.order("forget", secret[:12], {"version": secret[:12]})["ok"]
    world.pass_ms(1_000)
    assert [each["name"] for each in asked(hub, "port", at="30s")] == ["port"]
    answer = hub.call("recall", {"words": ["port"], "at": "once"})
    assert answer["error"]["kind"] == "Malformed"
