"""The headless modes of the vendors' programs: recorded lines, hostile lines, and how they end.

The lines below `headless/` were printed by the real programs (Claude Code 2.1.332, Codex 0.171.0,
Gemini CLI 0.61, opencode 1.18, Copilot CLI 1.0.102, Qwen Code 0.24.4) working with the scripted
model; folders, and what differs with each machine, were taken out. They are never recorded again:
a program that changes what it prints gets lines beside them.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves

from muster.agent import dialects
from muster.agent.catalogue import load
from muster.agent.dialects import DIALECTS
from muster.agent.headless import EVENT_LINE_BYTES_MAX, UPDATES_MAX, HeadlessDriver
from muster.agent.lines import VALUES_MAX
from muster.agent.transcript import COUNT_MAX, TEXT_BYTES_MAX
from muster.limits import BODY_BYTES_MAX

LINES = Path(__file__).with_name("headless")
OF = {name: e.headless.dialect for name, e in load().items() if e.headless is not None}
NAMES = sorted(OF)
# The name each program gives the call that writes the file, and what it asked for.
WRITTEN = "/home/u/tree/hello.txt"


def driver(name, **changes):
    order = {
        "agent": name,
        "argv": [name],
        "dialect": OF.get(name, name),
        "prompt": "Do it.",
        "cwd": "/home/u/tree",
        "env": {},
        "secrets": {},
        "login": f"run `{name} login` there",
    }
    return HeadlessDriver(order | changes)


def fed(made, data, size=65536):
    events = made.opening()
    for at in range(0, len(data), size):
        events += made.output("stdout", data[at : at + size])
    return events + made.closing()


def recorded(name):
    return (LINES / f"{name}.jsonl").read_bytes()


def line(**event):
    return json.dumps(event).encode() + b"\n"


def tools(events):
    return [fields for kind, fields in events if kind == "agent.tool"]


@proves("agent.headless-events")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [65536, 7])
def test_recorded_lines_become_the_events_of_an_attempt(name, size):
    made = driver(name)
    events = fed(made, recorded(name), size)
    outcome = made.outcome(0)
    assert (outcome["status"], outcome["summary"]) == ("ok", "All done."), outcome
    assert (outcome["tail"], outcome["said_bytes"]) == ("All done.", 9)
    assert events[0] == ("agent.prompt", {"agent": name, "text": "Do it."})
    ended = [f for f in tools(events) if f["status"] in ("completed", "failed")]
    # The command that it ran, and what it printed (Gemini refuses that command by itself).
    ran = next(f for f in ended if f["kind"] == "execute" and "touch made" in f["title"])
    assert ("Blocked" if name == "gemini" else "42") in ran["output"], ran
    if name == "codex":
        return
    assert [f for f in ended if f["kind"] == "edit" and f["paths"] == [WRITTEN]], ended
    outside = next(f for f in ended if f["kind"] == "edit" and "/elsewhere/" in f["paths"][0])
    refused = name in ("claude", "gemini", "opencode", "qwen")
    assert (outside["status"] == "failed") == refused, outside


@proves("agent.headless-events")
@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("claude", {"input_tokens": 40, "output_tokens": 20, "usd_millionths": 560}),
        ("codex", {"input_tokens": 40, "output_tokens": 20, "cached_read_tokens": 0}),
        ("gemini", {"input_tokens": 40, "output_tokens": 20, "total_tokens": 60}),
        ("opencode", {"input_tokens": 40, "output_tokens": 20, "total_tokens": 60}),
        ("qwen", {"input_tokens": 40, "output_tokens": 20, "total_tokens": 60}),
        ("copilot", {}),
    ],
)
def test_what_it_used_is_counted_where_the_program_says_it(name, usage):
    made = driver(name)
    events = fed(made, recorded(name))
    assert made.outcome(0)["usage"].items() >= usage.items()
    told = [fields for kind, fields in events if kind == "agent.usage"]
    # Copilot says its model and no tokens.
    assert bool([fields for fields in told if fields.keys() - {"models"}]) == bool(usage)
    assert not [v for fields in told for v in fields.values() if isinstance(v, float)]
    if name == "claude":
        assert {"cost": "0.000560", "currency": "USD"} in told


@proves("agent.goes-on")
@pytest.mark.parametrize("name", [name for name in NAMES if name != "copilot"])
def test_the_name_of_a_session_is_told_once_as_soon_as_the_program_says_it(name):
    events = fed(driver(name), recorded(name))
    (told,) = [(n, f) for n, (kind, f) in enumerate(events) if kind == "agent.session"]
    assert told[0] == 1, "before anything that it did"
    assert told[1]["session"] in recorded(name).decode()


@proves("agent.goes-on")
def test_what_goes_on_is_asked_to_go_on_and_nothing_else():
    made = driver("claude", resume="s7", session="s7", go_on="Go on.")
    assert made.stdin == b"Go on."
    assert made.opening() == [
        ("agent.prompt", {"agent": "claude", "text": "Go on.", "resumes": "s7"}),
        ("agent.session", {"session": "s7"}),
    ]


@proves("agent.usage-as-it-happens")
@pytest.mark.parametrize("name", ["claude", "qwen", "opencode"])
def test_tokens_are_told_with_each_answer_of_the_model_and_never_twice(name):
    made, sums = driver(name), []
    for each in recorded(name).splitlines(keepends=True):
        events = made.output("stdout", each)
        sums += [f["input_tokens"] for kind, f in events if "input_tokens" in f]
    assert sums[:4] == [10, 20, 30, 40]
    assert made.outcome(0)["usage"]["input_tokens"] == 40


@proves("agent.usage-as-it-happens")
def test_a_message_of_several_parts_is_counted_once():
    made = driver("claude")
    for number, text in ((1, "a"), (1, "b"), (2, "c")):
        usage = {"input_tokens": 10, "output_tokens": 1}
        content = [{"type": "text", "text": text}]
        message = {"id": f"m{number}", "model": "opus", "usage": usage, "content": content}
        made.output("stdout", line(type="assistant", message=message))
    assert made.outcome(0)["usage"] == {"input_tokens": 20, "output_tokens": 2}


@proves("agent.usage-as-it-happens")
@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("claude", ["claude-opus-5-5"]),
        ("gemini", ["fake"]),
        ("qwen", ["scripted"]),
        ("copilot", ["fake-model"]),
    ],
)
def test_the_models_that_answered_are_told_once(name, models):
    events = fed(driver(name), recorded(name))
    assert [f["models"] for kind, f in events if "models" in f] == [models]


@proves("agent.headless-prompt")
def test_the_prompt_is_all_of_the_input_and_no_argument():
    made = driver("claude", prompt="keep this from `ps`")
    assert (made.stdin, made.stdin_ends) == (b"keep this from `ps`", True)
    assert made.argv == ["claude"]


@proves("agent.headless-failures")
@pytest.mark.parametrize(
    ("name", "said", "errors", "starts", "out"),
    [
        (
            "claude",
            [
                {"type": "assistant", "is_api_error_message": True, "error": "authentication_failed",
                 "message": {"content": [{"type": "text", "text": "Not logged in · Please run /login"}]}},
                {"type": "result", "subtype": "success", "is_error": True,
                 "result": "Not logged in · Please run /login"},
            ],
            b"",
            "the agent is not logged in: Not logged in · Please run /login; run `claude login` there",
            True,
        ),
        (
            "claude",
            [{"type": "result", "subtype": "success", "is_error": True,
              "result": "API Error: Request rejected (429) · told to fail"}],
            b"",
            "the agent's account is at a limit: API Error: Request rejected (429)",
            False,
        ),
        (
            "codex",
            [{"type": "turn.failed", "error": {"message": "unexpected status 401 Unauthorized: no"}}],
            b"",
            "the agent is not logged in: unexpected status 401 Unauthorized: no; run `codex login`",
            True,
        ),
        (
            "codex",
            [{"type": "error", "message": "Reconnecting... waiting for network (Connection failed)"}],
            b"",
            "the agent does not reach its model: Reconnecting...",
            False,
        ),
        ("gemini", [], b"Please set an Auth method in your settings.json", "the agent is not logged in", True),
        (
            "opencode",
            [{"type": "error", "error": {"name": "APIError",
              "data": {"message": "told to fail", "statusCode": 401}}}],
            b"",
            "the agent is not logged in: told to fail (HTTP 401); run",
            True,
        ),
        ("copilot", [], b"To authenticate, start 'copilot' and run the '/login' command", "the agent is not", True),
        ("claude", [], b"env: 'node': No such file or directory", "the agent ended before it said", False),
    ],
)  # fmt: skip
def test_a_program_that_did_nothing_says_what_of_this_machine_is_missing(
    name, said, errors, starts, out
):
    made = driver(name)
    made.output("stderr", errors)
    fed(made, b"".join(line(**each) for each in said))
    outcome = made.outcome(1)
    assert outcome["summary"].startswith(starts), outcome
    assert (outcome["status"], outcome["fault"], outcome["logged_out"]) == ("error", "agent", out)


@proves("agent.headless-failures")
@pytest.mark.parametrize(
    ("name", "said", "errors", "code"),
    [
        # A model that answers knows who asks, whatever else is complained of meanwhile.
        ("claude", [{"type": "result", "subtype": "success", "stop_reason": "refusal"}], b"(node:403) Warning", 0),
        ("claude", [{"type": "result", "subtype": "error_max_turns"}], b"using the API key of the environment", 1),
        ("claude", [{"type": "result", "subtype": "success"}], b"MCP server docs: authentication needed", 1),
        ("opencode", [{"type": "step_finish", "part": {"reason": "length"}}], b"rate limit 0 of 50 used", 0),
        ("gemini", [{"type": "message", "role": "assistant", "content": "I begin."}], b"hint: /login changes the account", -11),
        # Numbers are no status because they are 401, and a status of the order is not the account's.
        ("claude", [{"type": "result", "subtype": "success", "is_error": True, "result": "400: prompt is too long: 1 > 401 pages"}], b"", 1),
        ("codex", [{"type": "turn.failed", "error": {"message": "context of 429 files is too long"}}], b"", 1),
    ],
)  # fmt: skip
def test_what_an_order_or_a_model_is_to_blame_for_is_not_the_machines_fault(
    name, said, errors, code
):
    made = driver(name)
    made.output("stderr", errors)
    fed(made, b"".join(line(**each) for each in said))
    outcome = made.outcome(code)
    assert (outcome["status"] != "ok", outcome["fault"], outcome["logged_out"]) == (True, "", False), outcome  # fmt: skip


@proves("agent.headless-failures")
def test_a_program_that_worked_before_it_lost_its_login_failed_at_its_task():
    made = driver("claude")
    call = {"type": "tool_use", "id": "1", "name": "Bash", "input": {"command": "true"}}
    failed = {"type": "result", "subtype": "success", "is_error": True, "result": "401"}
    fed(made, line(type="assistant", message={"content": [call]}) + line(**failed))
    outcome = made.outcome(1)
    assert (outcome["status"], outcome["fault"]) == ("failed", "")
    assert outcome["summary"] == "the agent failed: 401"


@proves("agent.headless-failures")
@pytest.mark.parametrize(
    ("name", "event", "code", "status", "summary"),
    [
        ("claude", {"type": "result", "subtype": "error_max_turns"}, 1, "failed", "the agent stopped: error_max_turns."),
        ("claude", {"type": "result", "subtype": "success", "stop_reason": "refusal"}, 0, "failed", "the agent stopped: refusal."),
        ("opencode", {"type": "step_finish", "part": {"reason": "length"}}, 0, "failed", "the agent stopped: length."),
        ("opencode", {"type": "step_finish", "part": {"reason": "tool-calls"}}, 0, "error", "the agent ended in the middle (exit code 0)"),
        ("codex", {"type": "turn.completed"}, -9, "failed", "the agent ended badly after its turn (SIGKILL)"),
        ("codex", {"type": "thread.started"}, -9, "error", "the agent ended in the middle (SIGKILL)"),
        ("copilot", {"type": "result", "exitCode": 3}, 3, "failed", "the agent failed (exit code 3)"),
    ],
)  # fmt: skip
def test_only_a_turn_that_ended_well_and_an_exit_code_of_nought_are_a_success(
    name, event, code, status, summary
):
    made = driver(name)
    fed(made, line(**event))
    outcome = made.outcome(code)
    assert (outcome["status"], outcome["summary"]) == (status, summary)


@proves("agent.headless-hostile")
@pytest.mark.parametrize("name", NAMES)
def test_lines_that_are_no_events_change_nothing_of_what_the_others_say(name):
    noise = [
        b"Warning: something\n", b"\n", b"{\n", b"[1, 2]\n", b"null\n", b'"text"\n', b"\xff\xfe\n",
        b"[" * 100_000 + b"\n", b'{"a":' * 200 + b"1" + b"}" * 200 + b"\n",
        b"x" * (EVENT_LINE_BYTES_MAX + 1000) + b"\n",
        line(type="of tomorrow", data=[1, {"b": 2}]), line(type=["no"]), line(), line(type="item.completed", item=7),
    ]  # fmt: skip
    lines = recorded(name).splitlines(keepends=True)
    mixed = b"".join(noise[number % 9] + each for number, each in enumerate(lines))
    made, plain = driver(name), driver(name)
    assert fed(made, mixed + b"".join(noise)) == fed(plain, recorded(name))
    outcome = made.outcome(0)
    assert (outcome["status"], outcome["summary"]) == ("ok", "All done.")
    assert len(outcome["tail"]) < 200, "what is noise is handed to no later phase"


@proves("agent.headless-hostile", "agent.journal-bounded")
def test_one_line_makes_a_bounded_number_of_events():
    blocks = [{"type": "text", "text": f"{n}"} for n in range(20_000)]
    made = driver("claude")
    events = fed(made, line(type="assistant", message={"content": blocks}))
    assert len(events) <= UPDATES_MAX + 2
    assert "one line told more than 1000 things" in made.outcome(1)["tail"]
    made = driver("claude")
    words = {"type": "text", "text": "a\n\n" * (EVENT_LINE_BYTES_MAX // 6)}
    events = made.output("stdout", line(type="assistant", message={"content": [words]}))
    assert 100 < len(events) < 4 * EVENT_LINE_BYTES_MAX // TEXT_BYTES_MAX


@proves("agent.headless-hostile")
def test_a_line_of_too_many_values_is_kept_as_a_complaint_and_never_read():
    made = driver("claude")
    full = b'{"type":"result","subtype":"success","x":[' + b"{}," * VALUES_MAX + b"0]}\n"
    made.output("stdout", full)
    assert made.outcome(0)["status"] != "ok"
    assert "subtype" in made.outcome(0)["tail"]


@proves("agent.secrets-masked", "agent.headless-hostile")
@pytest.mark.parametrize("name", NAMES)
def test_a_secret_in_a_long_name_of_a_call_or_a_session_is_hidden_before_it_is_cut(name):
    secret = "tok-" + "A1b2C3d4E5" * 4
    long = "x" * 185 + secret
    made = driver(name, secrets={"A": secret})
    item = {"type": "command_execution", "id": long, "command": "ls"}
    part = {"type": "tool", "callID": long, "tool": "ls", "state": {"status": "completed"}}
    block = {"type": "tool_use", "id": long, "name": "ls", "input": {"command": "ls"}}
    session = {"session_id": long, "thread_id": long, "sessionID": long}
    kinds = ["assistant", "item.completed", "tool_use", "tool.execution_start"]
    call = {"tool_id": long, "tool_name": "ls", "data": {"toolCallId": long, "toolName": "ls"}}
    events = []
    for kind in kinds:
        told = {"type": kind, **session, **call, "item": item, "part": part}
        events += fed(made, line(**told, message={"content": [block]}))
    assert "agent.tool" in [kind for kind, _ in events]
    assert "[A]" in json.dumps(events)
    assert secret[:8] not in json.dumps(events)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
_WORDS = sorted(
    {
        word
        for name in NAMES
        for text in [recorded(name).decode()]
        for word in re.findall(r'"([A-Za-z_.-]{2,30})"', text)
    }
)


@proves("agent.headless-hostile")
@given(
    name=st.sampled_from(NAMES),
    number=st.integers(0, 40),
    cuts=st.lists(st.tuples(st.sampled_from(_WORDS), _json), min_size=1, max_size=4),
)
def test_whatever_kind_a_field_has_an_event_is_read_without_a_word(name, number, cuts):
    lines = recorded(name).splitlines()
    event = json.loads(lines[number % len(lines)])
    for word, value in cuts:
        _replace(event, word, value)
    made = driver(name)
    fed(made, line(**event) if "type" in event else json.dumps(event).encode() + b"\n")
    outcome = made.outcome(0)
    assert outcome["status"] in ("ok", "failed", "error")
    json.dumps(outcome)


def _replace(value, word, other):
    """Put something else wherever a field of this name is."""
    if isinstance(value, dict):
        for key in list(value):
            if key == word:
                value[key] = other
            else:
                _replace(value[key], word, other)
    elif isinstance(value, list):
        for each in value:
            _replace(each, word, other)


@proves("agent.headless-hostile")
def test_a_flood_is_bounded_in_what_is_kept_and_in_each_event():
    made = driver("claude")
    text = "word " * 40_000
    said = {"content": [{"type": "text", "text": text}]}
    events = []
    for number in range(20):
        events += made.output("stdout", line(type="assistant", message=said))
        call = {"type": "tool_use", "id": str(number), "name": "Bash", "input": {"command": text}}
        events += made.output("stdout", line(type="assistant", message={"content": [call]}))
        result = {"type": "tool_result", "tool_use_id": str(number), "content": text}
        events += made.output("stdout", line(type="user", message={"content": [result]}))
        made.output("stderr", text.encode())
    made.closing()
    assert max(len(json.dumps(fields)) for _, fields in events) < BODY_BYTES_MAX
    outcome = made.outcome(0)
    assert outcome["said_bytes"] > 20 * len(text)
    assert len(outcome["summary"]) < 4096


@proves("agent.headless-hostile", "agent.secrets-masked")
def test_a_secret_is_hidden_in_words_tools_complaints_and_the_outcome():
    made = driver("claude", secrets={"API_KEY": "sk-very-secret-0123"})
    call = {
        "type": "tool_use",
        "id": "1",
        "name": "Bash",
        "input": {"command": "echo sk-very-secret-0123"},
    }
    result = {"type": "tool_result", "tool_use_id": "1", "content": "sk-very-secret-0123"}
    data = line(
        type="assistant",
        message={"content": [{"type": "text", "text": "it is sk-very-secret-0123"}]},
    )
    data += line(type="assistant", message={"content": [call]}) + line(
        type="user", message={"content": [result]}
    )
    data += line(type="result", subtype="success", is_error=True, result="no: sk-very-secret-0123")
    made.output("stderr", b"not with sk-very-sec")
    made.output("stderr", b"ret-0123\nprinted\n")
    events = fed(made, data + b"stray sk-very-secret-0123\n")
    outcome = made.outcome(1)
    assert "sk-very-secret" not in json.dumps([events, outcome])
    assert outcome["masked"] == ["API_KEY"]
    assert "[API_KEY]" in outcome["summary"]


@proves("agent.headless-hostile", "agent.secrets-masked")
@pytest.mark.parametrize("where", ["error", "stop", "stray"])
def test_a_secret_is_hidden_before_anything_is_cut(where):
    secret = "sk-" + "very-secret-" * 50
    result = {"type": "result", "subtype": "success", "is_error": True, "result": "no"}
    for before in range(0, 2100, 97):
        made = driver("claude", secrets={"KEY": secret})
        data = line(**result)
        if where == "error":
            data = line(**result | {"result": "." * before + secret})
        elif where == "stop":
            data = line(**result | {"is_error": False, "subtype": "." * before + secret})
        else:
            data = (secret * 3 + "." * (before % 600) + secret).encode() + b"\n" + data
        told = json.dumps([fed(made, data), made.outcome(1)])
        assert "very-secret" not in told, (where, before)


@proves("agent.headless-hostile")
@pytest.mark.parametrize("name", ["claude", "opencode", "codex", "gemini"])
def test_what_it_says_it_used_is_a_number_that_an_entry_holds(name):
    for count, dollars in [(-5, -1), (10**400, 10**400), (2**53, 1e308), (10**15, 999_999)]:
        tokens = {"input_tokens": count, "output_tokens": count, "input": count, "output": count}
        cache = {"read": count, "write": count}
        step = {
            "type": "step_finish",
            "part": {"reason": "stop", "tokens": {**tokens, "cache": cache}, "cost": dollars},
        }
        of = {
            "claude": {"type": "result", "subtype": "success", "usage": tokens, "total_cost_usd": dollars},
            "codex": {"type": "turn.completed", "usage": tokens},
            "gemini": {"type": "result", "status": "success", "stats": tokens},
            "opencode": step,
        }  # fmt: skip
        made = driver(name)
        events = fed(made, line(**of[name]) * 12_000)
        usage = made.outcome(0)["usage"]
        assert all(0 <= value <= COUNT_MAX for value in usage.values()), usage
        told = [fields for kind, fields in events if kind == "agent.usage"]
        assert all(
            0 <= float(v) <= COUNT_MAX for f in told for k, v in f.items() if k != "currency"
        )


@proves("agent.headless-events")
def test_what_codex_plans_patches_searches_and_thinks_is_told():
    items = [
        {"id": "1", "type": "reasoning", "text": "First the tests."},
        {"id": "2", "type": "todo_list", "items": [{"text": "tests", "completed": True}]},
        {"id": "3", "type": "file_change", "status": "completed",
         "changes": [{"path": "/home/u/tree/a.py", "kind": "update"}]},
        {"id": "4", "type": "web_search", "query": "how"},
        {"id": "5", "type": "mcp_tool_call", "server": "fleet", "tool": "send", "arguments": {"to": "x"},
         "status": "failed", "error": {"message": "refused"}},
    ]  # fmt: skip
    made = driver("codex")
    events = fed(made, b"".join(line(type="item.completed", item=each) for each in items))
    assert ("agent.thought", {"text": "First the tests."}) in events
    plan = {"content": "tests", "priority": "", "status": "completed"}
    assert ("agent.plan", {"entries": [plan]}) in events
    ended = {f["call"]: f for f in tools(events) if f["status"] in ("completed", "failed")}
    assert (ended["3"]["kind"], ended["3"]["paths"]) == ("edit", ["/home/u/tree/a.py"])
    assert ended["4"]["kind"] == "fetch"
    assert (ended["5"]["title"], ended["5"]["output"], ended["5"]["status"]) == (
        "fleet.send", "refused", "failed",
    )  # fmt: skip


@proves("agent.headless-events")
def test_text_in_pieces_is_one_message_and_whole_messages_are_several():
    made = driver("gemini")
    pieces = [
        line(type="message", role="assistant", content=c, delta=True) for c in ("All ", "done.")
    ]
    events = fed(made, b"".join(pieces) + line(type="result", status="success"))
    assert [f["text"] for k, f in events if k == "agent.output"] == ["All done."]
    made = driver("copilot")
    whole = [line(type="assistant.message", data={"content": c}) for c in ("First.", "Then.")]
    events = fed(made, b"".join(whole) + line(type="result", exitCode=0))
    assert [f["text"] for k, f in events if k == "agent.output"] == ["First.", "Then."]
    assert made.outcome(0)["summary"] == "Then."


@proves("agent.headless-hostile")
def test_the_driver_needs_the_standard_library_alone():
    """The shim starts without site-packages; what it imports must be found there."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import muster.agent.headless, sys; print('msgspec' in sys.modules)"
    source = str(Path(dialects.__file__).parents[2])
    argv = [sys.executable, "-I", "-S", "-c", code, source]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
    assert set(OF.values()) == set(DIALECTS)
