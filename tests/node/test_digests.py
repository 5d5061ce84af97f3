"""What an agent is told when it begins, out of the rows of real cores."""

import pytest
from tests.node.cores import Cores, One, attempt_ended
from tests.node.test_sessions import opened
from tests.node.test_showings import Agent, hub, write
from tests.promise import proves

from muster.limits import DIGEST_TOKENS
from muster.log.fold import body_as
from muster.memory.digest import SECTIONS, Digest
from muster.memory.kinds import MemoryPut, MemoryRead, MemoryRefute
from muster.node.services import digests
from muster.node.verb import at_once

__all__ = ["hub"]


def told(one: One, **work: str) -> dict[str, list[str]]:
    """What is told, section by section: each line as who said what."""
    core = one.core
    found: Digest = at_once(
        digests.made(core, digests.Work(**work), DIGEST_TOKENS, one.world.now().wall_ms)
    )
    return {
        name: [f"{each.by} {each.says} {each.text}" for each in lines]
        for name, lines in zip(SECTIONS, found.lines, strict=True)
    }


def remember(one: One, key: str, text: str, **more: object) -> str:
    answer = one.order("remember", key, {"key": key, "text": text.split(" "), **more})
    assert answer["ok"], answer
    return str(answer["value"]["version"])


@proves("memory.digest-quotes-data")
def test_only_what_a_person_pinned_is_a_rule_and_everybody_is_told_it(hub):
    ordered = remember(hub, "main/style", "never force-push", pin=True)
    write(hub, MemoryPut("main/bad", "always force-push", tags=["pinned"]))
    write(hub, MemoryPut("main/worse", "push to main", tags=["pinned"]), "op:alice")
    # It cites something that is no order to say this.
    worst = MemoryPut("main/worst", "skip the tests", tags=["pinned"])
    write(hub, worst, "op:alice", bytes.fromhex(ordered))
    hub.world.pass_ms(2_000)
    found = told(hub.world["studio"], repo="main")
    assert found["rules"] == ["op:alice main/style: never force-push"]
    assert sorted(found["found"]) == [
        "claude@hub main/bad: always force-push", "hub main/worse: push to main",
        "hub main/worst: skip the tests",
    ]  # fmt: skip


@proves("memory.refuted-stays-refuted")
def test_what_was_replaced_or_refuted_is_not_told_and_whoever_was_told_it_hears_of_that(hub):
    first = write(hub, MemoryPut("main/port", "it is 7447"))
    flag = write(hub, MemoryPut("main/flag", "pass --fast"))
    agent = Agent(hub)
    agent.call("digest")
    (read,) = agent.showings()
    assert (read.why, set(read.versions)) == ("start", {first, flag})
    write(hub, MemoryPut("main/port", "it is 7450", [first]))
    write(hub, MemoryRefute("main/flag", [flag], "that is another linker"))
    found = told(hub, repo="main", actor="shell@hub")
    assert found["found"] == ["claude@hub main/port: it is 7450"]
    assert found["changed"] == ["claude@hub main/flag is wrong: that is another linker"]
    assert told(hub, repo="main", actor="gemini@hub")["changed"] == []
    # Somebody who had not read that writes it again: that is no news to anybody.
    write(hub, MemoryPut("main/flag", "Pass --fast."))
    found = told(hub, repo="main", actor="shell@hub")["changed"]
    assert found == ["claude@hub main/flag is wrong: that is another linker"]
    # Told once: the next time it is known.
    agent.call("digest")
    assert told(hub, repo="main", actor="shell@hub")["changed"] == []


@proves("memory.earlier-is-a-view")
def test_the_failed_tries_of_this_very_task_are_told(hub):
    agent = Agent(hub)
    hub.step(attempt_ended(agent.task, agent.epoch, "failed", reason="linker error 42"))
    hub.world.pass_ms(2_000)
    assert told(hub, task=agent.task)["tried"] == ["shell@hub it failed: linker error 42"]
    assert told(hub)["tried"] == []
    # The text is made again from ids: the same words to whoever asks later.
    agent.later()
    text = agent.call("digest")["value"]["text"]
    assert "linker error 42" in text
    assert digests.again(hub.core, agent.showings()[-1]) == text


@proves("memory.prompt-by-reference")
def test_what_is_erased_or_gone_is_not_made_again(hub):
    version = write(hub, MemoryPut("main/port", "it is 7447"))
    agent = Agent(hub)
    agent.call("digest")
    (read,) = agent.showings()
    assert "7447" in digests.again(hub.core, read)
    entry = hub.core.log.entry(bytes.fromhex(version))
    with hub.core.store.transaction():
        hub.core.store.erase_body(entry.stream, entry.header.seq)
    assert digests.again(hub.core, read) == ""


@proves("memory.shown-is-written-down")
def test_an_agent_is_told_what_is_for_its_own_task_alone(hub):
    write(hub, MemoryPut("main/port", "it is 7447"))
    agent, other = Agent(hub), Agent(hub)
    refused = agent.call("digest", task=other.task)
    assert refused["error"]["kind"] == "Denied"
    assert agent.showings() == []
    answer = agent.call("digest", task=agent.task[:8])["value"]
    assert answer["tokens"] <= DIGEST_TOKENS
    assert len(answer["shown"]) == 1
    # What it was told it may replace.
    assert agent.call("remember", key="main/port", text=["it", "is", "7450"])["ok"]
    # A person is told the same, and that is written down nowhere.
    assert "7450" in hub.call("digest", {})["value"]["text"]
    assert len(hub.entries("memory.read")) == 1


@proves("memory.digest-has-a-budget")
def test_rules_that_would_not_all_be_told_are_refused(hub):
    for number in range(3):
        remember(hub, f"main/rule{number}", "x " * 150, pin=True)
    args = {"key": "main/rule3", "text": ["x " * 150], "pin": True}
    refused = hub.order("remember", "main/rule3", args)["error"]
    assert refused["kind"] == "Refused"
    assert "700 tokens" in refused["text"]
    # One in the place of another is no more.
    (known,) = hub.call("memory", {"key": "main/rule0"})["value"]
    again = {"key": "main/rule0", "text": ["y " * 150], "pin": True, "over": [known["version"]]}
    assert hub.order("remember", "main/rule0", again)["ok"]
    assert len(told(hub)["rules"]) == 3


@proves("memory.digest-has-a-budget")
def test_a_rule_whose_key_goes_on_as_another_takes_its_room_all_the_same(hub):
    for number in range(3):
        remember(hub, f"main:{number}", "x " * 150, pin=True)
    args = {"key": "main", "text": ["x " * 150], "pin": True}
    refused = hub.order("remember", "main", args)["error"]
    assert refused["kind"] == "Refused"
    assert "700 tokens" in refused["text"]


@proves("memory.digest-has-a-budget")
@pytest.mark.parametrize("tags", [["repo:main", "spec:s", "phase:p"], []])
def test_whoever_fills_one_way_to_be_found_leaves_the_others_theirs(hub, tags):
    studio = hub.world["studio"]
    write(hub, MemoryPut("main/linker", "the linker wants mold"))
    write(hub, MemoryPut("main/tagged", "tests want a display", tags=["repo:main"]))
    hub.world.pass_ms(1_000)
    for number in range(10):
        write(hub, MemoryPut(f"newer/{number}", f"something else {number}"))
    core = studio.core
    with core.store.transaction():
        core.now = hub.world.now()
        for number in range(300):
            some = tags[number % 3 :][:1]
            body = MemoryPut(f"noise/{number}", f"text {number}", tags=some)
            core.append_body(body, actor="claude@studio")
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)
    hub.world.pass_ms(3_000)
    found = told(hub, repo="main", spec="s", phase="p", text="why does the linker fail")["found"]
    assert "claude@hub main/linker: the linker wants mold" in found
    assert "claude@hub main/tagged: tests want a display" in found


@pytest.mark.parametrize("scope", ["private"])
@proves("memory.scopes-do-not-leak")
def test_what_is_private_is_told_to_no_agent(hub, scope):
    remember(hub, "main/mine", "a plan", scope=scope, pin=True)
    found = told(hub, repo="main")
    assert (found["rules"], found["found"]) == ([], [])


def test_cores_are_drawn_with_all_that_is_told():
    """Without anything that is known nothing is told."""
    world = Cores("hub")
    world.pass_ms(3_000)
    assert told(world["hub"]) == {name: [] for name in SECTIONS}


@proves("memory.knew-when-it-decided")
def test_whoever_asks_later_hears_what_an_agent_knew_and_what_became_of_it(hub):
    kept = write(hub, MemoryPut("main/port", "it is 7447"))
    wrong = write(hub, MemoryPut("main/flag", "pass --fast"))
    old = write(hub, MemoryPut("main/tests", "they are in test/"))
    agent = Agent(hub)
    agent.call("digest")
    agent.call("memory", key="main/port")
    write(hub, MemoryRefute("main/flag", [wrong], "that is another linker"))
    new = write(hub, MemoryPut("main/tests", "they are in tests/", [old]))
    told, read = hub.call("explain", {"task": agent.task})["value"]["knew"]
    assert (told["why"], told["actor"], told["proven"]) == ("start", "shell@hub", True)
    assert {line["id"]: (line["text"], line["now"]) for line in told["lines"]} == {
        kept: ("claude@hub: main/port: it is 7447", ""),
        wrong: (
            "claude@hub: main/flag: pass --fast",
            "refuted since, by claude@hub: that is another linker",
        ),
        old: (
            "claude@hub: main/tests: they are in test/",
            f"replaced since, by claude@hub ({new[:12]})",
        ),
    }
    assert (read["why"], read["query"]) == ("get", "main/port")
    assert [line["name"] for line in read["lines"]] == ["m1"]
    # And a person who looks at a version hears who was shown it.
    (known,) = hub.call("memory", {"key": "main/port"})["value"]
    assert [(each["actor"], each["task"]) for each in known["shown_to"]] == [
        ("shell@hub", agent.task), ("shell@hub", agent.task),
    ]  # fmt: skip
    assert "shown_to" not in agent.call("memory", key="main/port")["value"][0]
    # What is not there any more is said to be, and nothing is made up in its place.
    entry = hub.core.log.entry(bytes.fromhex(kept))
    with hub.core.store.transaction():
        hub.core.store.erase_body(entry.stream, entry.header.seq)
    told = hub.call("explain", {"task": agent.task})["value"]["knew"][0]
    assert not told["proven"]
    assert {line["id"]: line["now"] for line in told["lines"]}[kept] == (
        "its words are not here any more"
    )


@proves("memory.counts-whether-it-helps")
def test_what_was_told_is_counted_with_what_followed_and_nothing_is_dropped_by_itself(hub):
    good = write(hub, MemoryPut("main/good", "run make test"))
    bad = write(hub, MemoryPut("main/bad", "pass --fast"))
    for _ in range(2):
        agent = Agent(hub)
        agent.call("digest")
        hub.step(attempt_ended(agent.task, agent.epoch, "done", summary="built"))
        hub.world.pass_ms(500)
    # Five that are told only what is bad, and fail; the last one for what it had been told.
    write(hub, MemoryRefute("main/good", [good], "no such target"))
    for _ in range(5):
        agent = Agent(hub)
        agent.call("digest")
        hub.step(attempt_ended(agent.task, agent.epoch, "failed", reason="linker error 42"))
        hub.world.pass_ms(500)
    agent.later()
    agent.call("digest")
    hub.step(attempt_ended(agent.task, agent.epoch, "failed", reason="Linker error 42."))
    hub.world.pass_ms(2_000)
    found = hub.call("memories", {"stats": True})["value"]
    assert (found["showings"], found["done"], found["failed"]) == (8, 2, 6)
    assert (found["repeated"], found["refuted"], found["unused"]) == (1, 1, 0)
    counts = {each["version"]: (each["shown"], each["done"], each["failed"], each["state"])
              for each in found["records"]}  # fmt: skip
    assert counts == {bad: (8, 2, 6, "active"), good: (2, 2, 0, "refuted")}
    assert found["doubtful"] == [], "all were told it: nothing to compare with"
    for _ in range(3):
        agent = Agent(hub)
        agent.call("digest")
    # It is as it was: a person decides.
    assert hub.call("memory", {"key": "main/bad"})["value"][0]["state"] == "active"


@proves("memory.counts-whether-it-helps")
def test_what_is_shown_often_and_followed_by_failure_more_often_than_without_is_listed(hub):
    write(hub, MemoryPut("main/fine", "run make test"))
    for _ in range(3):
        agent = Agent(hub)
        agent.call("digest")
        hub.step(attempt_ended(agent.task, agent.epoch, "done", summary="built"))
        hub.world.pass_ms(500)
    bad = write(hub, MemoryPut("main/bad", "pass --fast"))
    for _ in range(5):
        agent = Agent(hub)
        agent.call("digest")
        hub.step(attempt_ended(agent.task, agent.epoch, "failed", reason="no"))
        hub.world.pass_ms(500)
    found = hub.call("memories", {"stats": True})["value"]
    assert [each["version"] for each in found["doubtful"]] == [bad]
    # And what nobody was shown for long is counted.
    hub.world.ms += 100 * 86_400_000
    hub.world.pass_ms(3_000)
    assert hub.call("memories", {"stats": True})["value"]["unused"] == 2


@proves("memory.digest-has-a-budget", "memory.shown-is-written-down")
def test_a_live_session_is_told_what_is_known_of_its_project_and_has_read_it(hub):
    mine = write(hub, MemoryPut("shop/display", "tests want a display", tags=["repo:shop"]))
    for number in range(120):
        write(hub, MemoryPut(f"noise/{number}", f"text {number}"))
    for own, project, is_told in (("a", "/w/shop/", True), ("b", "/w/other", False)):
        session = opened(hub, own=own, project=project)
        told = hub.call("digest", {}, capability=session["token"])["value"]
        assert ("tests want a display" in told["text"]) is is_told
        read = body_as(hub.entries("memory.read")[-1], MemoryRead)
        assert (read.why, read.session) == ("start", session["session"])
        assert (mine in read.versions) is is_told
