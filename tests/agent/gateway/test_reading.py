"""What answers say of usage: streamed and whole, cut into any pieces, and hostile."""

import json
import random

import pytest
from tests.promise import proves

from muster.agent.gateway import reading
from muster.agent.gateway.api import passes, put, read_body, route_of, value_of
from muster.agent.gateway.apis import APIS
from muster.agent.gateway.reading import Reading
from muster.agent.gateway.usage import Usage
from muster.errors import Denied, Malformed

SSE = "text/event-stream; charset=utf-8"
JSON = "application/json"


def events(*said, named=True, end="\n"):
    lines = []
    for each in said:
        name = f"event: {each['type']}{end}" if named and "type" in each else ""
        lines.append(f"{name}data: {json.dumps(each)}{end}{end}")
    return "".join(lines).encode()


MESSAGES = events(
    {"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5",
        "content": [], "usage": {
            "input_tokens": 12, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 4000,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
            "output_tokens": 1, "service_tier": "standard"}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 'a "usage": 9'}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 55}},
    {"type": "message_stop"},
)  # fmt: skip
MESSAGE = {
    "id": "msg_1", "type": "message", "model": "claude-sonnet-5", "content": [],
    "usage": {"input_tokens": 12, "cache_creation_input_tokens": 300,
              "cache_read_input_tokens": 4000, "output_tokens": 55,
              "cache_creation": {"ephemeral_1h_input_tokens": 200}},
}  # fmt: skip
CLAUDE = Usage(input=12, cache_read=4000, cache_write=100, cache_write_hour=200, output=55)
RESPONSE = {
    "id": "resp_1", "object": "response", "status": "completed", "model": "gpt-6-sol", "output": [],
    "usage": {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
              "output_tokens": 40, "output_tokens_details": {"reasoning_tokens": 30}, "total_tokens": 140},
}  # fmt: skip
RESPONSES = events(
    {"type": "response.created", "response": {**RESPONSE, "usage": None, "status": "in_progress"}},
    {"type": "response.output_item.added", "item": {"id": "msg_7", "type": "message"}},
    {"type": "response.output_text.delta", "delta": "hello"},
    {"type": "response.completed", "response": RESPONSE},
)
CHAT = events(
    {"id": "chatcmpl-1", "model": "gpt-5", "choices": [{"delta": {"content": "a"}}], "usage": None},
    {"id": "chatcmpl-1", "model": "gpt-5", "choices": [], "usage": {
        "prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140,
        "prompt_tokens_details": {"cached_tokens": 60}}},
) + b"data: [DONE]\n\n"  # fmt: skip
PIECES = [
    {"candidates": [{"content": {"parts": [{"text": "a"}]}}], "modelVersion": "gemini-2.5-pro",
     "responseId": "r1", "usageMetadata": {"promptTokenCount": 100, "totalTokenCount": 100}},
    {"candidates": [{"finishReason": "STOP"}], "modelVersion": "gemini-2.5-pro", "responseId": "r1",
     "usageMetadata": {"promptTokenCount": 100, "cachedContentTokenCount": 60,
                       "candidatesTokenCount": 30, "thoughtsTokenCount": 10,
                       "toolUsePromptTokenCount": 5, "totalTokenCount": 145}},
]  # fmt: skip
GPT = Usage(input=40, cache_read=60, output=40)
WRITTEN = Usage(input=10, cache_read=60, cache_write=30, output=40)
GEMINI = Usage(input=45, cache_read=60, output=40)

SHAPES = [
    pytest.param("anthropic", SSE, MESSAGES, CLAUDE, "claude-sonnet-5", "msg_1", id="messages"),
    pytest.param(
        "anthropic", JSON, json.dumps(MESSAGE).encode(), CLAUDE, "claude-sonnet-5", "msg_1",
        id="message",
    ),
    pytest.param("openai", SSE, RESPONSES, WRITTEN, "gpt-6-sol", "resp_1", id="responses"),
    pytest.param(
        "openai", JSON, json.dumps(RESPONSE).encode(), WRITTEN, "gpt-6-sol", "resp_1", id="response"
    ),
    pytest.param("openai", SSE, CHAT, GPT, "gpt-5", "chatcmpl-1", id="chat"),
    pytest.param(
        "google", SSE, events(*PIECES, end="\r\n"), GEMINI, "gemini-2.5-pro", "r1", id="gemini"
    ),
    pytest.param(
        "google", JSON, json.dumps(PIECES).encode(), GEMINI, "gemini-2.5-pro", "r1",
        id="gemini-list",
    ),
    pytest.param(
        "google", JSON, json.dumps(PIECES[1]).encode(), GEMINI, "gemini-2.5-pro", "r1",
        id="gemini-whole",
    ),
]  # fmt: skip


def read(api, kind, raw, cuts=()):
    found = Reading(APIS[api], kind)
    for start, end in zip((0, *cuts), (*cuts, len(raw)), strict=True):
        found.feed(raw[start:end])
    found.end()
    return found


@proves("gateway.usage")
@pytest.mark.parametrize(("api", "kind", "raw", "usage", "model", "id"), SHAPES)
def test_an_answer_says_what_it_used_which_model_it_was_and_its_id(
    api, kind, raw, usage, model, id
):
    found = read(api, kind, raw)
    assert found.usage(0) == (usage, False)
    assert (found.answer.model, found.answer.id) == (model, id)
    assert (found.got_bytes, found.unread) == (len(raw), 0)


@proves("gateway.usage")
@pytest.mark.parametrize(("api", "kind", "raw", "usage", "model", "id"), SHAPES)
def test_it_says_so_however_it_is_cut_into_pieces(api, kind, raw, usage, model, id):
    assert read(api, kind, raw, range(1, len(raw))).usage(0) == (usage, False)
    for seed in range(50):
        chance = random.Random(seed)
        cuts = sorted(chance.sample(range(1, len(raw)), 9))
        assert read(api, kind, raw, cuts).usage(0) == (usage, False), cuts


@proves("gateway.never-free")
@pytest.mark.parametrize(("api", "kind", "raw", "usage", "model", "id"), SHAPES)
def test_one_that_is_cut_off_anywhere_is_estimated_and_never_free(api, kind, raw, usage, model, id):
    for size in range(0, len(raw), 7):
        found, estimated = read(api, kind, raw[:size]).usage(prompt_bytes=4_000)
        if estimated:
            assert found.prompt > 0
            assert found.output >= size // 16
        else:
            # The sum was said before the end.
            assert found == usage


@proves("gateway.never-free")
def test_what_the_prompt_used_counts_from_the_first_event_on():
    said, estimated = read("anthropic", SSE, MESSAGES[:700]).usage(prompt_bytes=10**6)
    assert estimated
    assert said.prompt == CLAUDE.prompt


@proves("gateway.never-free")
@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"null", b"[" * 100_000, b'{"usage": {}}', b'{"usage": [1]}', b'{"usage": "7"}',
        b'{"usage": {"input_tokens": -5, "output_tokens": "x"}}', b"\xff\xfe\x00",
        b'{"type": "message", "usage": {"input_tokens": 1e30}}', b'{"type": {}, "usage": 1}',
        b'{"type": "message_start", "message": 3, "usage": 4}',
        b'{"candidates": 3, "usageMetadata": 4}', b'[[[{"usage": 3}]]]',
        b'{"type": "response.completed", "response": []}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("kind", [SSE, JSON, "", "text/html"])
def test_whatever_is_answered_is_counted_as_something(api, kind, raw):
    whole = b"data: " + raw + b"\n\n" if kind == SSE else raw
    said, estimated = read(api, kind, whole).usage(prompt_bytes=400)
    assert estimated
    assert said.prompt >= 100


@proves("gateway.never-free")
@pytest.mark.parametrize("kind", [SSE, JSON])
def test_an_answer_longer_than_is_kept_is_estimated_and_its_memory_is_given_back(kind, monkeypatch):
    monkeypatch.setattr(reading, "KEPT_BYTES_MAX", 1_000)
    found = Reading(APIS["openai"], kind)
    for _ in range(100):
        found.feed(b"data: " + b"x" * 500)
        assert len(found._kept) <= 1_000
    found.feed(b"\n\n")
    found.end()
    assert found.unread == 1
    assert found.usage(0)[1]


@proves("gateway.usage")
def test_after_an_event_that_is_too_long_the_next_is_read(monkeypatch):
    monkeypatch.setattr(reading, "KEPT_BYTES_MAX", 2_000)
    found = read("anthropic", SSE, b"data: " + b"y" * 5_000 + b"\n\n" + MESSAGES)
    assert found.usage(0) == (CLAUDE, False)
    assert found.unread == 1


@proves("gateway.never-free")
def test_many_lines_of_one_event_are_bounded_together(monkeypatch):
    monkeypatch.setattr(reading, "KEPT_BYTES_MAX", 1_000)
    found = Reading(APIS["openai"], SSE)
    for _ in range(1_000):
        found.feed(b"data: 0123456789\n")
        assert found._data_bytes <= 1_000
    found.feed(b'data: {"usage": 3}\n\n' + RESPONSES)
    assert found.unread == 1, "all of the long one, and nothing of the next"
    assert found.usage(0) == (WRITTEN, False)


# --- what is asked


def asked(api, path, **body):
    raw = read_body(json.dumps(body).encode())
    return APIS[api].ask(path, raw), raw


@proves("gateway.budget")
@pytest.mark.parametrize(
    ("api", "path", "body", "model", "most"),
    [
        ("anthropic", "/v1/messages", {"model": "m", "max_tokens": 32_000}, "m", 32_000),
        ("openai", "/responses", {"model": "m"}, "m", 0),
        ("openai", "/responses", {"model": "m", "max_output_tokens": 9}, "m", 9),
        ("openai", "/chat/completions", {"model": "m", "max_completion_tokens": 9, "n": 3}, "m", 27),
        ("openai", "/chat/completions", {"model": "m", "max_tokens": 8}, "m", 8),
        ("google", "/v1beta/models/gemini-2.5-pro:generateContent", {}, "gemini-2.5-pro", 0),
        (
            "google", "/v1beta/models/g:streamGenerateContent",
            {"generationConfig": {"maxOutputTokens": 7, "candidateCount": 2}}, "g", 14,
        ),
    ],
)  # fmt: skip
def test_a_call_says_its_model_and_its_most(api, path, body, model, most):
    found, _ = asked(api, path, **body)
    assert (found.model, found.output_max) == (model, most)


@proves("gateway.budget")
@pytest.mark.parametrize(
    ("api", "path", "body", "wanted"),
    [
        ("anthropic", "/v1/messages", {"max_tokens": 9_000}, {"max_tokens": 100}),
        ("openai", "/responses", {}, {"max_output_tokens": 100}),
        ("openai", "/chat/completions", {"max_tokens": 900, "n": 2}, {"max_tokens": 50, "n": 2}),
        (
            "google", "/v1beta/models/g:generateContent",
            {"generationConfig": {"temperature": 1, "candidateCount": 2}},
            {"generationConfig": {"temperature": 1, "candidateCount": 2, "maxOutputTokens": 50}},
        ),
    ],
)  # fmt: skip
def test_its_output_is_limited_to_what_is_left(api, path, body, wanted):
    raw = read_body(json.dumps(body).encode())
    APIS[api].limit(path, raw, 100)
    assert {name: value_of(raw, name) for name in raw} == wanted


@proves("gateway.budget")
def test_a_model_that_thinks_by_a_budget_keeps_some_and_is_not_asked_for_less_than_it_needs():
    body = {
        "model": "m",
        "max_tokens": 32_000,
        "thinking": {"type": "enabled", "budget_tokens": 31_999},
    }
    found, raw = asked("anthropic", "/v1/messages", **body)
    assert found.output_min == 2_048
    APIS["anthropic"].limit("/v1/messages", raw, 5_000)
    assert value_of(raw, "thinking") == {"type": "enabled", "budget_tokens": 2_500}


@proves("gateway.never-free")
def test_a_stream_of_chat_is_asked_to_say_what_it_used():
    raw = read_body(b'{"model": "m", "stream": true, "stream_options": {"other": 1}}')
    APIS["openai"].limit("/chat/completions", raw, 0)
    assert value_of(raw, "stream_options") == {"other": 1, "include_usage": True}


@proves("gateway.never-free")
def test_an_answer_in_the_background_is_not_asked_for():
    with pytest.raises(Denied, match="in the background"):
        asked("openai", "/responses", model="m", background=True)


@proves("gateway.budget")
def test_what_is_said_twice_in_a_request_is_said_once_to_the_model():
    """Two readers could each believe another."""
    raw = read_body(b'{"max_tokens": 5, "model": "a", "max_tokens": 7}')
    assert value_of(raw, "max_tokens") == 7
    put(raw, "max_tokens", 3)
    assert [bytes(raw[name]) for name in raw] == [b"3", b'"a"']


@proves("gateway.usage")
@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"3", b"{", b'{"a":' * 100_000, b"\xff", b'{"a": \x00}']
)
def test_a_request_that_is_no_object_is_refused(raw):
    with pytest.raises(Malformed):
        read_body(raw)


@proves("gateway.usage")
@pytest.mark.parametrize("model", [None, 3, "", "x" * 300, "a\nb", {}])
def test_a_request_without_a_model_is_refused(model):
    with pytest.raises(Malformed, match="says no model"):
        asked("anthropic", "/v1/messages", model=model)


# --- what passes


@proves("gateway.passes")
@pytest.mark.parametrize(
    ("api", "method", "path", "counted"),
    [
        ("anthropic", "POST", "/v1/messages", True),
        ("anthropic", "POST", "/v1/messages/count_tokens", False),
        ("anthropic", "GET", "/v1/models/claude-sonnet-5", False),
        ("openai", "POST", "/responses", True),
        ("openai", "POST", "/chat/completions", True),
        ("openai", "GET", "/models", False),
        ("google", "POST", "/v1beta/models/gemini-2.5-pro:streamGenerateContent", True),
        ("google", "POST", "/v1beta/models/gemini-2.5-pro:countTokens", False),
    ],
)
def test_the_calls_of_an_api_pass_and_those_that_cost_are_counted(api, method, path, counted):
    assert route_of(APIS[api], method, path).counted == counted


@proves("gateway.passes")
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/v1/messages/", "/v1/messages/batches", "/v1/files", "/v1/organizations/me",
        "//v1/messages", "/v1/../v1/messages", "/v1/messages%00", "/v1/messages?x", "/V1/MESSAGES",
        "/responses/resp_1", "/responses/resp_1/cancel", "/batches", "/files", "/embeddings",
        "/v1beta/cachedContents", "/v1beta/models/a:batchGenerateContent", "/v1beta/files",
        "/v1beta/models/../x:generateContent", "/v1beta/models/a/b:generateContent",
        "/v1/messages\n", "/models/a/b", "/upload/v1beta/files", "/v1beta/tunedModels/a:generateContent",
    ],
)  # fmt: skip
def test_nothing_else_passes(api, path):
    assert all(route_of(APIS[api], m, path) is None for m in ("GET", "POST", "DELETE", "PUT"))


@proves("gateway.passes")
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    "header",
    [
        "x-api-key", "authorization", "x-goog-api-key", "cookie", "host", "proxy-authorization",
        "x-http-method-override", "x-forwarded-for", "connection", "transfer-encoding", "expect",
        "content-encoding", "content-length", "accept-encoding", "upgrade", "x-goog-user-project",
    ],
)  # fmt: skip
def test_no_key_and_no_header_of_the_way_passes(api, header):
    assert not passes(APIS[api], header)


@proves("gateway.refusal")
@pytest.mark.parametrize("status", [400, 403, 404, 413, 502])
def test_a_refusal_has_the_form_of_its_api(status):
    said = {name: api.refusal(status, "a sentence") for name, api in APIS.items()}
    assert said["anthropic"]["type"] == "error"
    assert {each["error"]["message"] for each in said.values()} == {"a sentence"}
    assert said["google"]["error"]["code"] == status
