"""OpenAI's Responses and Chat Completions, and what others speak that is like them.

A stream of Responses says usage in its last event (`response.completed`, `.incomplete` or
`.failed`). Chat Completions says it in a last piece without choices, and only where it was asked
to: so it is asked to. Cached tokens and those written into a cache are part of the input.
"""

import re
from typing import Any, Final

from muster.agent.gateway.api import Answer, Api, Ask, Body, Route, put, text_of, value_of
from muster.agent.gateway.usage import Usage, count, named, part
from muster.errors import Denied

_ENDINGS: Final = ("response.completed", "response.incomplete", "response.failed")
# Responses refuses to be limited to less.
_OUTPUT_MIN: Final = 16
_CHAT: Final = "/chat/completions"


class OpenAI(Api):
    name = "openai"
    base = "/v1"
    key = "authorization"
    headers = ("openai-", "originator", "session_id", "conversation_id", "version", "x-codex-")
    parameters = frozenset({"limit", "after", "client_version"})
    routes = (
        Route("POST", re.compile(r"/responses"), counted=True),
        Route("POST", re.compile(r"/responses/compact"), counted=True),
        Route("POST", re.compile(_CHAT), counted=True),
        Route("GET", re.compile(r"/models(/[\w.:-]{1,100})?")),
    )

    def ask(self, path: str, body: Body) -> Ask:
        if value_of(body, "background") not in (None, False):
            raise Denied("an answer in the background says nothing of its usage, and is not asked")
        names = ("max_completion_tokens", "max_tokens") if path == _CHAT else ("max_output_tokens",)
        most = next((n for n in (count(value_of(body, name)) for name in names) if n), 0)
        # Several answers to one question are each as long as that.
        several = max(1, min(count(value_of(body, "n")), 128)) if path == _CHAT else 1
        least = several if path == _CHAT else _OUTPUT_MIN
        return Ask(text_of(body, "model"), most * several, least)

    def limit(self, path: str, body: Body, output_max: int) -> None:
        if path != _CHAT:
            # Compacting takes no limit.
            if output_max and path == "/responses":
                put(body, "max_output_tokens", output_max)
            return
        if value_of(body, "stream") is True:
            options = value_of(body, "stream_options")
            wanted = options if isinstance(options, dict) else {}
            put(body, "stream_options", {**wanted, "include_usage": True})
        each = output_max // max(1, min(count(value_of(body, "n")), 128))
        # Which of the two names a server takes, only its client knows.
        for name in ("max_completion_tokens", "max_tokens"):
            if output_max and count(value_of(body, name)) > each:
                put(body, name, each)

    def hear(self, answer: Answer, said: Any) -> None:
        kind = part(said, "type")
        of = part(said, "response") if kind in (*_ENDINGS, "response.created") else said
        answer.model = named(of, "model") or answer.model
        answer.id = named(of, "id") or answer.id
        used = part(of, "usage")
        if isinstance(used, dict) and used:
            answer.usage = _usage(used)
            answer.final = True

    def refusal(self, status: int, sentence: str) -> dict[str, Any]:
        kind = "invalid_request_error" if status < 500 else "server_error"
        return {"error": {"message": sentence, "type": kind, "param": None, "code": None}}


def _usage(used: dict[str, Any]) -> Usage:
    chat = "prompt_tokens" in used
    prompt = count(used.get("prompt_tokens" if chat else "input_tokens"))
    details = part(used, "prompt_tokens_details" if chat else "input_tokens_details")
    read = min(prompt, count(part(details, "cached_tokens")))
    written = min(prompt - read, count(part(details, "cache_write_tokens")))
    return Usage(
        input=prompt - read - written,
        output=count(used.get("completion_tokens" if chat else "output_tokens")),
        cache_read=read,
        cache_write=written,
    )


OPENAI: Final[Api] = OpenAI()
