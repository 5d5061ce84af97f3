"""What programs tell their hooks, and the shapes of what they read."""

import json

import pytest
from tests.promise import proves

from muster.agent.plugin import hook


def raw(**said: object) -> bytes:
    return json.dumps({"session_id": "1", "cwd": "/w", **said}).encode()


@proves("hook.odd-input")
@pytest.mark.parametrize(
    ("name", "event"),
    [("SessionStart", "start"), ("BeforeAgent", "prompt"), ("AfterTool", "tool"),
     ("AfterAgent", "stop"), ("sessionStart", "start"), ("beforeSubmitPrompt", "prompt")],
)  # fmt: skip
def test_the_events_of_all_programs_have_the_same_few_meanings(name, event):
    said = hook.read(raw(hook_event_name=name))
    assert said is not None
    assert (said.event, said.name, said.own, said.folder) == (event, name, "1", "/w")


@proves("hook.odd-input")
def test_of_a_long_input_what_is_whole_at_its_beginning_counts():
    whole = raw(hook_event_name="PostToolUse", tool_name="Write",
                tool_input={"file_path": "a.py", "content": '"session_id":"other"}]}'},
                tool_response={"text": "x" * 1000})  # fmt: skip
    for size in range(len(whole)):
        said = hook.read(whole[:size])
        assert said is None or said.own == "1"
    assert hook.read(whole[:-500]) == hook.read(whole)
    assert hook.read(whole).files == ("a.py",)


@proves("hook.tells-of-collisions")
def test_which_files_a_tool_wrote():
    def files(tool: str, given: object) -> tuple[str, ...]:
        said = hook.read(raw(hook_event_name="AfterTool", tool_name=tool, tool_input=given))
        return said.files

    assert files("Read", {"file_path": "a"}) == ()
    assert files("write_file", {"file_path": "a", "content": "b"}) == ("a",)
    patch = "*** Begin Patch\n*** Update File: src/a.py\n@@\n*** Add File: b.py\n*** End Patch"
    assert files("apply_patch", {"input": patch}) == ("src/a.py", "b.py")
    assert files("edit", {"file_path": 1}) == ()


@proves("hook.odd-input")
def test_what_an_agent_below_the_sessions_own_did_is_not_told():
    assert hook.read(raw(hook_event_name="PostToolUse", agent_id="a1")) is None


@proves("hook.shown-is-proven")
@pytest.mark.parametrize(
    ("agent", "name", "shape"),
    [
        ("claude", "PostToolUse",
         {"hookSpecificOutput": {"hookEventName": "PostToolUse", "additionalContext": "T"}}),
        ("copilot", "PostToolUse", {"additionalContext": "T"}),
        ("codex", "Stop", {"decision": "block", "reason": "T"}),
        ("cursor", "stop", {"followup_message": "T"}),
        ("cursor", "postToolUse", {"additional_context": "T"}),
    ],
)  # fmt: skip
def test_each_program_reads_the_shape_that_it_knows(agent, name, shape):
    said = hook.read(raw(hook_event_name=name))
    assert json.loads(hook.answer(agent, said, "T")) == shape
    assert hook.answer(agent, said, "") == ""
    assert hook.answer("opencode", said, "T") == "T"
