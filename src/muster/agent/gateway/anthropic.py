"""Anthropic's Messages API.

A stream says the prompt's usage in `message_start`, and all of the output so far in each
`message_delta`; the last is the sum. A whole message has both under `usage`.
"""

import re
from typing import Any, Final

from muster.agent.gateway.api import Answer, Api, Ask, Body, Route, put, text_of, value_of
from muster.agent.gateway.usage import Usage, count, named, part

# A model that thinks by a budget needs at least so many tokens for it.
_THOUGHT_MIN: Final = 1_024


class Anthropic(Api):
    name = "anthropic"
    base = ""
    key = "x-api-key"
    headers = ("anthropic-", "x-app", "x-claude-", "x-client-")
    parameters = frozenset({"beta", "limit", "after_id", "before_id"})
    routes = (
        Route("POST", re.compile(r"/v1/messages"), counted=True),
        Route("POST", re.compile(r"/v1/messages/count_tokens")),
        Route("GET", re.compile(r"/v1/models(/[\w.-]{1,100})?")),
    )

    def ask(self, path: str, body: Body) -> Ask:
        del path
        most = count(value_of(body, "max_tokens"))
        thinks = count(part(value_of(body, "thinking"), "budget_tokens"))
        return Ask(text_of(body, "model"), most, 2 * _THOUGHT_MIN if thinks else 1)

    def limit(self, path: str, body: Body, output_max: int) -> None:
        del path
        if not output_max:
            return
        put(body, "max_tokens", output_max)
        thinking = value_of(body, "thinking")
        if count(part(thinking, "budget_tokens")) >= output_max:
            # It has to be less than all output, and something is to be said after it.
            less = max(_THOUGHT_MIN, output_max // 2)
            put(body, "thinking", {**thinking, "budget_tokens": less})

    def hear(self, answer: Answer, said: Any) -> None:
        kind = part(said, "type")
        message = part(said, "message") if kind == "message_start" else said
        if kind in ("message_start", "message"):
            answer.model = named(message, "model") or answer.model
            answer.id = named(message, "id") or answer.id
        used = part(message, "usage")
        if kind in ("message_start", "message_delta", "message") and used:
            answer.usage = _most(answer.usage, _usage(used))
        answer.final = answer.final or kind in ("message_delta", "message")

    def refusal(self, status: int, sentence: str) -> dict[str, Any]:
        kinds = {403: "permission_error", 404: "not_found_error", 413: "request_too_large"}
        kind = kinds.get(status, "invalid_request_error" if status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": sentence}}


def _usage(used: Any) -> Usage:
    written = count(part(used, "cache_creation_input_tokens"))
    hour = min(written, count(part(part(used, "cache_creation"), "ephemeral_1h_input_tokens")))
    return Usage(
        input=count(part(used, "input_tokens")),
        output=count(part(used, "output_tokens")),
        cache_read=count(part(used, "cache_read_input_tokens")),
        cache_write=written - hour,
        cache_write_hour=hour,
    )


def _most(one: Usage, other: Usage) -> Usage:
    """Each number as large as it was ever said: later events leave out what earlier ones had."""
    written = max(
        one.cache_write + one.cache_write_hour, other.cache_write + other.cache_write_hour
    )
    hour = max(one.cache_write_hour, other.cache_write_hour)
    return Usage(
        input=max(one.input, other.input),
        output=max(one.output, other.output),
        cache_read=max(one.cache_read, other.cache_read),
        cache_write=written - hour,
        cache_write_hour=hour,
    )


ANTHROPIC: Final[Api] = Anthropic()
