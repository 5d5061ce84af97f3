"""One turn over ACP with an agent that behaves badly; the real ones are in tests/e2e."""

import asyncio
import json
import sys
from pathlib import Path

import msgspec
import pytest
from tests.agent.world import until
from tests.promise import proves

from muster import limits
from muster.agent import relay
from muster.agent.catalogue import AgentEntry, Servers
from muster.agent.policy import ASK, TASK_RULES, Policy, Rule

BAD = Path(__file__).with_name("acp_agent.py")


def catalogue(behaviour, mode=""):
    return {
        "bad": AgentEntry(
            title="A bad agent",
            driver="acp",
            command=(sys.executable, str(BAD), behaviour),
            program=sys.executable,
            version_probe=(sys.executable, "--version"),
            mode=mode,
        )
    }


def run(world, behaviour, mode="", **changes):
    order = world.order(agent="bad", prompt="go", **changes)
    return world.run(order, catalogue(behaviour, mode))


def decision(world):
    (only,) = [e.fields for e in world.events if e.kind == "agent.decision"]
    return only


@proves("agent.mcp-per-task")
@pytest.mark.parametrize("resume", ["", "s7"])
def test_a_session_is_told_of_its_servers_and_of_what_its_program_wants_beside_them(world, resume):
    docs = {"name": "docs", "command": "/opt/docs", "args": [], "env": []}
    known = catalogue("loads")["bad"]
    known = {"bad": msgspec.structs.replace(known, mcp=Servers(meta={"waitMs": 5}))}
    order = world.order(agent="bad", prompt="go", mcp=(docs,), resume=resume, go_on="Go on.")
    world.run(order, known)
    told = json.loads((world.cwd / "told").read_text())
    assert (told["mcpServers"], told["_meta"]) == ([docs], {"waitMs": 5})
    world.run(msgspec.structs.replace(order, mcp=()), known)
    told = json.loads((world.cwd / "told").read_text())
    assert (told["mcpServers"], "_meta" in told) == ([], False)


@proves("agent.acp-events")
def test_what_an_agent_says_becomes_events_joined_to_paragraphs(world):
    outcome = run(world, "words")
    assert [(e.kind, e.fields) for e in world.events] == [
        ("agent.prompt", {"agent": "bad", "text": "go", "session": "s1"}),
        ("agent.thought", {"text": "thinking"}),
        ("agent.output", {"stream": "message", "text": "First paragraph."}),
        ("agent.output", {"stream": "message", "text": "Second one."}),
        (
            "agent.plan",
            {"entries": [{"content": "do it", "priority": "high", "status": "pending"}]},
        ),
        (
            "agent.usage",
            {"context_used": 5, "context_size": 100, "cost": "0.300000", "currency": "USD"},
        ),
        ("agent.usage", {"total_tokens": 15, "input_tokens": 10, "output_tokens": 5}),
        ("agent.output", {"stream": "message", "text": "The end."}),
        ("agent.end", {"stop": "done", "status": "ok", "exit_code": 0}),
    ]
    assert (outcome.status, outcome.summary) == ("ok", "The end.")
    tokens = {"total_tokens": 15, "input_tokens": 10, "output_tokens": 5}
    assert outcome.usage == {**tokens, "usd_millionths": 300_000}


@proves("agent.acp-no-capabilities")
def test_no_file_and_no_terminal_is_offered_to_an_agent(world):
    run(world, "words")
    offered = json.loads((world.cwd / "offered").read_text())
    assert not offered.get("terminal")
    assert not any(offered.get("fs", {}).values())


@proves("agent.acp-mode")
def test_an_agent_is_put_into_the_mode_in_which_it_asks(world):
    run(world, "words", mode="careful")
    assert (world.cwd / "mode").read_text() == "careful"


@proves("agent.acp-mode")
def test_a_mode_that_the_agent_does_not_have_is_an_error_and_nothing_is_asked(world):
    outcome = run(world, "words", mode="absent")
    assert outcome.status == "error"
    assert "careful, wild" in outcome.summary
    assert "agent.prompt" not in world.kinds()


@proves("agent.bounded-output")
def test_a_flood_on_standard_error_neither_hangs_nor_fills_anything(world):
    assert run(world, "floods_stderr").summary == "still here"


@proves("agent.bounded-output")
def test_a_message_of_300_kilobytes_is_cut_with_a_mark(world):
    outcome = run(world, "speaks_long")
    assert outcome.status == "ok"
    assert "bytes cut]" in outcome.summary
    assert max(len(json.dumps(e.fields)) for e in world.events) < 20_000


@proves("agent.acp-errors")
def test_garbage_between_the_messages_does_not_end_a_turn(world):
    assert run(world, "prints_garbage").summary == "went on"


@proves("agent.unknown-answers")
@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ("stops_new", "a reason that is not known here: budget_reached. half of it"),
        ("stops_without_word", "ended its turn and did not say why. half of it"),
        ("stops_strangely", "a reason that is not known here: {'why': ['no', 5]}"),
        ("leaves_quietly", "the agent ended in the middle"),
        ("leaves_a_child", "the agent ended in the middle"),
        ("leaves_with_a_word", "its output ended (exit code 3): fatal: quota used up"),
    ],
)
def test_an_end_that_nobody_knows_is_a_failure_that_names_it(world, behaviour, says):
    outcome = run(world, behaviour)
    assert outcome.status in {"failed", "error"}
    assert says in outcome.summary
    assert outcome.fault == "", "the agent was asked"
    assert ("half of it" in outcome.tail) == (behaviour != "stops_strangely")


@proves("agent.unknown-answers")
@pytest.mark.parametrize("behaviour", ["updates_new", "titles", "floods_a_line", "answers_twice"])
def test_what_is_unknown_or_no_message_does_not_end_a_turn(world, behaviour):
    outcome = run(world, behaviour, ask_timeout_s=0.1)
    assert (outcome.status, outcome.summary) == ("ok", "went on")


@proves("agent.journal-bounded")
def test_an_agent_that_talks_for_ever_does_not_fill_the_journal(world):
    outcome = run(world, "chatters")
    assert outcome.status == "ok"
    size = sum(len(json.dumps(e.fields)) for e in world.events)
    assert size < limits.ATTEMPT_JOURNAL_BYTES_MAX + 1000
    assert "journal of this attempt is full" in world.text("stderr")
    assert world.kinds()[-1] == "agent.end"
    assert "line 59999" in outcome.tail


@proves("agent.secrets-masked")
def test_what_an_agent_says_over_acp_holds_no_secret(world):
    secret = "tok-" + "A1b2C3d4E5" * 4
    env = world.env(A_TOKEN=secret)
    outcome = run(world, "tells_a_secret", env=env, secrets={"A_TOKEN": secret})
    said = json.dumps([e.fields for e in world.events]) + outcome.summary + outcome.tail
    assert "[A_TOKEN]" in outcome.tail
    assert outcome.masked == ("A_TOKEN",)
    assert not [at for at in range(len(secret) - 8) if secret[at : at + 8] in said]


@proves("agent.told-faults")
@pytest.mark.parametrize(
    ("behaviour", "mode", "fault"),
    [
        ("needs_login", "", "agent"),
        ("words", "absent", "agent"),
        ("dies", "", ""),
        ("refuses", "", ""),
    ],
)
def test_what_fails_before_an_agent_is_asked_is_the_machines_fault(world, behaviour, mode, fault):
    outcome = run(world, behaviour, mode=mode)
    assert outcome.status != "ok"
    assert outcome.fault == fault


@proves("agent.told-faults")
@pytest.mark.parametrize("behaviour", ["works_and_fails", "asks_and_fails", "says_and_fails"])
def test_an_agent_that_has_worked_was_logged_in_whatever_number_its_error_has(world, behaviour):
    outcome = run(world, behaviour)
    assert (outcome.status, outcome.fault, outcome.logged_out) == ("error", "", False)
    assert outcome.summary == "the agent answered 'overloaded'"


@proves("agent.told-faults")
def test_a_program_that_cannot_be_started_is_the_machines_fault(world):
    entry = catalogue("words")["bad"]
    absent = msgspec.structs.replace(entry, command=(str(world.cwd / "absent"),))
    (world.cwd / "absent").write_text("no program")
    (world.cwd / "absent").chmod(0o755)
    outcome = world.run(world.order(agent="bad", prompt="go"), {"bad": absent})
    assert (outcome.status, outcome.fault) == ("error", "agent")


@proves("agent.acp-errors")
def test_an_agent_that_dies_in_the_middle_is_an_error_with_its_last_words(world):
    outcome = run(world, "dies")
    assert outcome.status == "error"
    assert "out of memory" in outcome.tail


@proves("agent.acp-errors")
def test_an_agent_that_a_signal_without_a_name_kills_is_an_error_with_its_last_words(world):
    outcome = run(world, "is_killed_without_a_name")
    assert outcome.status == "error"
    assert "(signal 40): out of memory" in outcome.summary


@proves("agent.acp-errors")
def test_a_refusal_is_a_failure(world):
    outcome = run(world, "refuses")
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    assert "refusal" in outcome.summary


@proves("agent.acp-errors")
def test_a_login_that_is_missing_is_named_with_the_detail_that_the_agent_gave(world):
    outcome = run(world, "needs_login")
    assert outcome.status == "error"
    assert outcome.summary == "the agent is not logged in: run the login first"


@proves("agent.acp-errors")
def test_what_an_agent_says_under_the_number_of_a_missing_login_is_told(world):
    outcome = run(world, "needs_a_licence")
    assert outcome.fault == "agent"
    assert "the licence has expired" in outcome.summary


@proves("agent.acp-errors")
def test_a_login_that_is_missing_is_told_with_what_the_catalogue_advises(world):
    (entry,) = catalogue("needs_login").values()
    advised = msgspec.structs.replace(entry, login="run `bad login` there")
    outcome = world.run(world.order(agent="bad", prompt="go"), {"bad": advised})
    assert outcome.summary.endswith(
        "; run `bad login` there (in its daemon's environment or agents.env)"
    )


@proves("agent.deadline")
def test_an_agent_that_never_answers_is_ended_at_the_deadline(world):
    outcome = run(world, "silent", timeout_s=1.5)
    assert outcome.status == "timeout"
    outcome = run(world, "ignores_cancel", timeout_s=3, grace_s=0.3)
    assert (outcome.status, outcome.tail) == ("timeout", "working\n"), "what it said is kept"
    assert world.alive() == {}


@proves("agent.policy")
@pytest.mark.parametrize(
    ("behaviour", "answer", "option"),
    [
        ("asks_inside", "allow", "id-allow_once"),
        ("asks_outside", "deny", "id-reject_once"),
        ("asks_through_link", "deny", "id-reject_once"),
        ("asks_for_many", "deny", "id-reject_once"),
        ("asks_for_half_a_character", "deny", "id-reject_once"),
    ],
)
def test_an_edit_is_allowed_inside_the_worktree_and_denied_outside(
    world, behaviour, answer, option
):
    outcome = run(world, behaviour)
    assert outcome.summary == option
    assert (decision(world)["answer"], decision(world)["by"]) == (answer, "policy")


@proves("agent.policy-once")
def test_a_permission_for_ever_is_never_given(world):
    outcome = run(
        world,
        "offers_only_always",
        policy=Policy({kind: Rule("allow", "allow") for kind in TASK_RULES}),
    )
    assert outcome.summary == "cancelled"
    assert decision(world)["answer"] == "deny"


@proves("agent.permission-ask", "approval.time-limit")
@pytest.mark.parametrize(("word", "option"), [("allow", "allow"), ("deny", "reject")])
def test_a_question_waits_for_the_answer_of_a_person(world, word, option):
    async def go():
        order = world.order(agent="bad", prompt="go", policy=Policy({"edit": ASK}))
        attempt = await world.start(order, catalogue("asks_inside"))
        assert await until(lambda: "agent.ask" in world.kinds())
        (asked,) = [e.fields for e in world.events if e.kind == "agent.ask"]
        assert (asked["class"], asked["within_ms"]) == ("edit-outside", 600_000)
        attempt.answer("another", "allow")
        # As if its time limit were over for the daemon: not while a person is asked.
        attempt._late()
        attempt.answer(asked["ask"], word)
        if word == "allow":
            # A yes alone lets it do nothing: who took it says that it is used, for this action.
            assert await until(lambda: "agent.use" in world.kinds())
            (used,) = [e.fields for e in world.events if e.kind == "agent.use"]
            assert used["action"] == asked["action"]
            attempt.answer(asked["ask"], "use")
        return await attempt.wait()

    assert asyncio.run(go()).summary == f"id-{option}_once"
    assert decision(world)["by"] == "person"


@proves("approval.one-action")
def test_what_becomes_another_action_while_a_person_is_asked_is_asked_about_anew(world):
    said = {"agent.ask": [], "agent.use": []}

    def news(kind):
        fresh = [e.fields for e in world.events if e.kind == kind]
        return fresh[-1] if len(fresh) > len(said[kind]) and not said[kind].append(1) else None

    async def wait(kind):
        found = []
        assert await until(lambda: found.append(news(kind)) or found[-1])
        return found[-1]

    async def go():
        order = world.order(agent="bad", prompt="go", policy=Policy({"edit": ASK}))
        attempt = await world.start(order, catalogue("asks_and_swaps"))
        first = await wait("agent.ask")
        (world.cwd / "asked").touch()
        assert await until(lambda: '{"path": "b"}' in str(world.events))
        attempt.answer(first["ask"], "allow")
        used = await wait("agent.use")
        assert used["action"] != first["action"]
        attempt.answer(first["ask"], "again")
        fresh = await wait("agent.ask")
        assert (fresh["input"], fresh["ask"] != first["ask"]) == ('{"path": "b"}', True)
        attempt.answer(first["ask"], "allow")
        attempt.answer(fresh["ask"], "allow")
        used = await wait("agent.use")
        assert used["action"] == fresh["action"]
        attempt.answer(fresh["ask"], "use")
        return await attempt.wait()

    assert asyncio.run(go()).summary == "allow_once"
    told = [e.fields["answer"] for e in world.events if e.kind == "agent.decision"]
    assert told == ["changed", "allow"]


@proves("approval.time-limit")
def test_a_time_limit_does_not_count_what_a_person_takes(world):
    outcome = run(
        world, "asks_inside", policy=Policy({"edit": ASK}), timeout_s=4, ask_timeout_s=4.5
    )
    assert (outcome.status, outcome.summary) == ("ok", "id-reject_once")


@proves("agent.permission-ask")
def test_a_cancel_while_a_question_waits_answers_no(world):
    async def go():
        order = world.order(agent="bad", prompt="go", policy=Policy({"edit": ASK}), grace_s=5)
        attempt = await world.start(order, catalogue("asks_inside"))
        assert await until(lambda: "agent.ask" in world.kinds())
        attempt.cancel("never mind")
        return await attempt.wait()

    assert asyncio.run(go()).status == "cancelled"
    assert decision(world)["answer"] == "deny"


@proves("agent.cancel-ends-all")
def test_a_cancelled_agent_is_asked_first(world):
    outcome = cancel(world, "obeys_cancel", grace_s=5)
    assert outcome.status == "cancelled"
    assert (world.cwd / "obeyed").exists()


@proves("agent.cancel-ends-all")
def test_an_agent_that_ignores_cancel_and_term_is_killed(world):
    outcome = cancel(world, "ignores_cancel", grace_s=0.3)
    assert outcome.status == "cancelled"
    assert world.alive() == {}


@proves("health.hurry")
def test_an_agent_that_is_stuck_is_given_a_moment_and_no_more(world):
    """With the grace of this order each step would take half a minute."""
    outcome = cancel(world, "ignores_cancel", hurry=True, grace_s=30, timeout_s=90)
    assert outcome.status == "cancelled"
    assert world.alive() == {}


@proves("health.told-first")
@pytest.mark.parametrize(
    ("behaviour", "said", "asked"),
    [("is_steered", "was told: try it otherwise", 2), ("ends_before_it_is_steered", "working", 1)],
)
def test_an_agent_is_told_something_in_the_middle_and_goes_on_in_its_session(
    world, behaviour, said, asked
):
    async def go():
        attempt = await world.start(world.order(agent="bad", prompt="go"), catalogue(behaviour))
        assert (attempt.is_agent, attempt.is_steered) == (True, True)
        assert await until(lambda: "agent.output" in world.kinds())
        attempt.steer("try it otherwise")
        return await attempt.wait()

    outcome = asyncio.run(go())
    assert (outcome.status, outcome.summary) == ("ok", said)
    prompts = [e.fields["text"] for e in world.events if e.kind == "agent.prompt"]
    assert prompts == ["go", "try it otherwise"][:asked]
    assert world.alive() == {}


def cancel(world, behaviour, *, hurry=False, **changes):
    async def go():
        order = world.order(agent="bad", prompt="go", **changes)
        attempt = await world.start(order, catalogue(behaviour))
        assert await until(lambda: "agent.output" in world.kinds())
        attempt.cancel("enough", hurry=hurry)
        return await attempt.wait()

    return asyncio.run(go())


@proves("agent.dies-with-daemon")
def test_the_daemon_never_imports_what_talks_with_agents():
    code = "import sys, muster.agent.process; sys.exit('muster.agent.acp' in sys.modules)"
    assert asyncio.run(_exit_code("-c", code)) == 0


@proves("agent.shim-start")
def test_the_shim_imports_nothing_but_the_standard_library():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import muster.agent.shim; "
        "heavy = {'asyncio', 'msgspec', 'logging', 'socket'} & set(sys.modules); sys.exit(len(heavy))"
    )
    assert asyncio.run(_exit_code("-I", "-S", "-c", code, relay.SOURCE_ROOT)) == 0


async def _exit_code(*arguments):
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    return await process.wait()


@proves("agent.goes-on")
@pytest.mark.parametrize("behaviour", ["loads", "resumes"])
def test_a_session_that_was_cut_off_is_gone_on_with_and_its_past_is_not_told_again(
    world, behaviour
):
    outcome = run(world, behaviour, "careful", resume="s7", go_on="Go on.")
    assert (outcome.status, outcome.summary) == ("ok", "Go on.")
    assert "long ago" not in json.dumps([event.fields for event in world.events])
    (asked,) = [e.fields for e in world.events if e.kind == "agent.prompt"]
    assert asked == {"agent": "bad", "text": "Go on.", "session": "s7", "resumes": "s7"}
    assert (world.cwd / "mode").read_text() == "careful", "also there it asks before it acts"


@proves("agent.goes-on")
@pytest.mark.parametrize("behaviour", ["forgets", "words"])
def test_an_agent_that_knows_the_session_no_more_begins_anew(world, behaviour):
    run(world, behaviour, resume="s7", go_on="Go on.")
    (asked,) = [e.fields for e in world.events if e.kind == "agent.prompt"]
    assert asked == {"agent": "bad", "text": "go", "session": "s1"}
