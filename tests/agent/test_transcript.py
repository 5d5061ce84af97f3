"""What an agent said, as the journal shows it and as later phases get it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves

from muster.agent import transcript as transcripts
from muster.agent.mask import Secrets
from muster.agent.transcript import MESSAGE_BYTES_MAX, TEXT_BYTES_MAX, Transcript
from muster.limits import VALUE_BYTES_MAX
from muster.log import canon

TOKEN = "tok-" + "A1b2C3d4E5" * 4

PLAN = "Here it is:\n\n```yaml\nmuster: 1\n\nname: a\n```"


def say(transcript, text):
    return transcript.update(
        {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
    )


def tool(transcript):
    transcript.update({"sessionUpdate": "tool_call", "toolCallId": "1", "status": "completed"})


@proves("agent.answer-unbroken")
def test_an_answer_that_pauses_in_the_middle_of_a_line_is_handed_on_unbroken():
    transcript = Transcript(Secrets({}))
    for piece in (PLAN[:20], PLAN[20:25], PLAN[25:]):
        say(transcript, piece)
        # The journal shows what there is when an agent pauses; the answer must not notice.
        transcript.flush()
    assert transcript.tail.text() == PLAN
    assert transcript.last_message == PLAN.rpartition("\n\n")[2]


@proves("agent.answer-unbroken")
def test_words_after_a_tool_are_a_message_of_their_own():
    transcript = Transcript(Secrets({}))
    say(transcript, "I look.")
    tool(transcript)
    say(transcript, "It is done.")
    assert transcript.tail.text() == "I look.\nIt is done."
    assert transcript.last_message == "It is done."


@proves("agent.answer-unbroken")
def test_of_a_long_answer_the_end_is_kept_with_a_mark():
    transcript = Transcript(Secrets({}))
    say(transcript, "x" * VALUE_BYTES_MAX)
    say(transcript, "the end")
    assert transcript.tail.text().startswith("[7 bytes cut]… xxx")
    assert transcript.tail.text().endswith("xthe end")
    assert len(transcript.last_message) == MESSAGE_BYTES_MAX


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)
KINDS = st.sampled_from(
    ["agent_message_chunk", "agent_thought_chunk", "tool_call", "tool_call_update", "plan",
     "usage_update", "current_mode_update", "available_commands_update", "new_kind"]
)  # fmt: skip
FIELDS = st.sampled_from(
    ["content", "toolCallId", "title", "kind", "status", "locations", "rawInput", "rawOutput",
     "entries", "used", "size", "cost", "currentModeId", "_meta"]
)  # fmt: skip


@proves("agent.unknown-answers")
@given(st.lists(st.tuples(KINDS | ANYTHING, st.dictionaries(FIELDS, ANYTHING)), max_size=6))
def test_an_update_of_any_form_gives_events_that_an_entry_can_hold(updates):
    transcript = Transcript(Secrets({"A": TOKEN}))
    events = []
    for kind, fields in updates:
        events += transcript.update({"sessionUpdate": kind, **fields})
    events += transcript.count(dict(updates[0][1]) if updates else {}) + transcript.end()
    for _, fields in events:
        canon.encode(json.loads(json.dumps(fields).encode("utf-8", "replace")))


@proves("agent.unknown-answers")
@pytest.mark.parametrize("count", [True, -1, 2**80, 1.5, "12", None])
def test_only_a_number_that_an_entry_can_hold_is_counted(count):
    transcript = Transcript(Secrets({}))
    assert transcript.count({"totalTokens": count, "inputTokens": 3}) == [
        ("agent.usage", {"input_tokens": 3})
    ]
    assert transcript.usage == {"input_tokens": 3}


@proves("agent.usage-as-it-happens")
def test_tokens_that_stand_beside_the_protocol_are_counted():
    """Gemini's with the answer to a prompt, Qwen Code's with each message."""
    beside = {"token_count": {"input_tokens": 20, "output_tokens": 10}}
    quota = {"quota": {**beside, "model_usage": [{"model": "flash", **beside}, {"model": "flash"}]}}
    transcript = Transcript(Secrets({}))
    told = {"input_tokens": 20, "output_tokens": 10, "models": ["flash"]}
    assert transcript.answered({"_meta": quota}) == [("agent.usage", told)]
    transcript = Transcript(Secrets({}))
    chunk = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": ""}}
    for _ in range(2):
        transcript.update({**chunk, "_meta": {"usage": {"inputTokens": 10, "outputTokens": "x"}}})
    assert transcript.usage == {"input_tokens": 20}


@proves("agent.usage-as-it-happens", "agent.unknown-answers")
@pytest.mark.parametrize(
    "quota", [None, [], {"token_count": 7, "model_usage": {}}, {"model_usage": [7]}]
)
def test_an_answer_without_a_known_count_counts_nothing(quota):
    transcript = Transcript(Secrets({}))
    assert transcript.answered({"_meta": {"quota": quota}}) == []
    assert transcript.answered({"_meta": 3, "usage": []}) == []


@proves("agent.secrets-masked")
@pytest.mark.parametrize("size", [1, 3, 11, 100])
def test_a_secret_in_the_pieces_of_a_message_is_hidden(size):
    transcript = Transcript(Secrets({"A": TOKEN}))
    events = []
    text = f"the key is {TOKEN}, keep it"
    for at in range(0, len(text), size):
        events += say(transcript, text[at : at + size])
        events += transcript.flush()
    events += transcript.end()
    # A blank alone makes no event; the answer has it.
    assert "".join(fields["text"] for _, fields in events).replace(" ", "") == "thekeyis[A],keepit"
    assert transcript.tail.text() == "the key is [A], keep it"


@proves("agent.secrets-masked")
def test_a_secret_is_hidden_in_every_field_of_a_tool_before_it_is_cut():
    transcript = Transcript(Secrets({"A": TOKEN}))
    long = "x" * 280 + TOKEN
    call = {"sessionUpdate": "tool_call", "toolCallId": "1", "title": long, "kind": TOKEN}
    call |= {"locations": [{"path": long}], "rawInput": {"command": "y" * 4080 + TOKEN}}
    events = transcript.update(call)
    for piece in ("z" * 50 + TOKEN[:10], TOKEN[10:]):
        meta = {"terminal_output_delta": {"data": piece}}
        events += transcript.update(
            {"sessionUpdate": "tool_call_update", "toolCallId": "1", "_meta": meta}
        )
    end = {"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": "completed"}
    end["content"] = [{"type": "diff", "path": long, "newText": "a"}]
    events += transcript.update(end)
    said = json.dumps(events)
    assert TOKEN[:8] not in said
    assert TOKEN[-8:] not in said
    assert transcript.tool({"toolCallId": "2", "title": TOKEN})["title"] == TOKEN, "for the policy"


@proves("agent.journal-bounded")
def test_many_small_paragraphs_at_once_are_few_events_and_nothing_of_them_is_lost():
    transcript = Transcript(Secrets({}))
    text = "\n\n".join(f"{n} é" for n in range(50_000)) + "\n\n" + "x" * 20_000 + "\n\nthe end"
    events = say(transcript, text) + transcript.end()
    said = [fields["text"] for _, fields in events]
    assert len(events) < 2 * len(text.encode()) // TEXT_BYTES_MAX
    assert "\n\n".join(said[:-2]) == text.partition("\n\nxx")[0]
    assert said[-2].startswith("xxx")
    assert said[-2].endswith("bytes cut]")
    assert said[-1] == "the end"
    assert say(transcript, "a\n\n" * 1_000_000)[0][1]["text"].startswith("a\n\na")


def begun(transcript, call, **fields):
    return transcript.update({"sessionUpdate": "tool_call", "toolCallId": call, **fields})


@proves("agent.calls-bounded")
@pytest.mark.parametrize("status", ["in_progress", "completed"])
def test_what_is_kept_of_tool_calls_is_bounded_however_large_they_are(status, monkeypatch):
    monkeypatch.setattr(transcripts, "TOOLS_BYTES_MAX", 1_000_000)
    transcript = Transcript(Secrets({}))
    large = "x" * 300_000
    for n in range(40):
        call = {"title": large, "kind": large, "rawInput": {"command": f"{n}{large}"}}
        begun(transcript, f"{n}{large}", **call, status="in_progress")
        begun(transcript, f"{n}{large}", status=status)
        begun(transcript, f"{n}", title="short", status=status)
    kept = [vars(transcript)[name] for name in ("_tools", "_shown", "_inputs", "_terminals")]
    assert len(json.dumps(kept[:3])) < 1_100_000
    assert transcript._held == sum(transcript._sizes.values()) <= 1_000_000
    assert set(transcript._sizes) == set(transcript._tools)
    assert "39" in transcript._tools, "the last one is known"
    if status == "completed":
        assert transcript._shown == {} == transcript._inputs
        assert len(transcript._tools) == 80, "of what has ended only the name is kept"


@proves("agent.calls-bounded")
def test_a_call_that_is_larger_than_the_bound_is_known_until_the_next(monkeypatch):
    monkeypatch.setattr(transcripts, "TOOLS_BYTES_MAX", 100_000)
    transcript = Transcript(Secrets({}))
    begun(transcript, "1", locations=[{"path": f"/etc/{n}"} for n in range(10_000)])
    assert len(transcript.tool({"toolCallId": "1"})["locations"]) == 10_000
    begun(transcript, "2", title="next")
    assert list(transcript._tools) == ["2"]


@proves("agent.secrets-masked")
def test_a_secret_at_the_edge_of_a_name_is_hidden_before_the_name_is_cut():
    edge = "x" * 285 + TOKEN
    transcript = Transcript(Secrets({"A": TOKEN}))
    events = begun(transcript, edge, title=edge, kind=edge, status=edge, rawInput={"a": edge})
    content = {"type": edge, "text": "a"}
    events += transcript.update({"sessionUpdate": "agent_message_chunk", "content": content})
    events += transcript.end()
    state = transcript.tool({"toolCallId": edge})
    for said in (json.dumps(events), json.dumps({**state, "rawInput": ""})):
        assert TOKEN[:8] not in said
