"""Google's Gemini API: generateContent, whole or streamed.

Each piece of a stream has `usageMetadata` of all so far. Cached tokens are part of the prompt's,
thoughts are not part of the candidates', and what tools put into the prompt stands by itself.
"""

import re
from typing import Any, Final

from muster.agent.gateway.api import Answer, Api, Ask, Body, Route, put, value_of
from muster.agent.gateway.usage import Usage, count, named, part
from muster.errors import Malformed

_MODELS: Final = r"/v1(?:beta|alpha)?/models"
_CALLED = re.compile(rf"{_MODELS}/([\w.-]{{1,100}}):\w+")
_STATUSES: Final = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}


class Google(Api):
    name = "google"
    base = ""
    key = "x-goog-api-key"
    headers = ("x-goog-api-client",)
    parameters = frozenset({"alt", "pageSize", "pageToken"})
    routes = (
        Route(
            "POST",
            re.compile(rf"{_MODELS}/[\w.-]{{1,100}}:(?:generateContent|streamGenerateContent)"),
            counted=True,
        ),
        Route("POST", re.compile(rf"{_MODELS}/[\w.-]{{1,100}}:countTokens")),
        Route("GET", re.compile(rf"{_MODELS}(/[\w.-]{{1,100}})?")),
    )

    def ask(self, path: str, body: Body) -> Ask:
        found = _CALLED.fullmatch(path)
        if found is None:
            raise Malformed("the address names no model")
        settings = value_of(body, "generationConfig")
        several = max(1, min(count(part(settings, "candidateCount")), 128))
        return Ask(found[1], count(part(settings, "maxOutputTokens")) * several, several)

    def limit(self, path: str, body: Body, output_max: int) -> None:
        del path
        if not output_max:
            return
        settings = value_of(body, "generationConfig")
        wanted = settings if isinstance(settings, dict) else {}
        several = max(1, min(count(part(settings, "candidateCount")), 128))
        put(body, "generationConfig", {**wanted, "maxOutputTokens": output_max // several})

    def hear(self, answer: Answer, said: Any) -> None:
        if isinstance(said, list):
            # Without `alt=sse` a stream is one list.
            for each in said:
                self.hear(answer, each)
            return
        answer.model = named(said, "modelVersion") or answer.model
        answer.id = named(said, "responseId") or answer.id
        used = part(said, "usageMetadata")
        if isinstance(used, dict) and used:
            answer.usage = _usage(used)
        candidates = part(said, "candidates")
        ended = isinstance(candidates, list) and any(part(c, "finishReason") for c in candidates)
        answer.final = answer.final or bool(used and ended)

    def refusal(self, status: int, sentence: str) -> dict[str, Any]:
        named_so = _STATUSES.get(status, "INVALID_ARGUMENT" if status < 500 else "UNAVAILABLE")
        return {"error": {"code": status, "message": sentence, "status": named_so}}


def _usage(used: dict[str, Any]) -> Usage:
    prompt = count(used.get("promptTokenCount"))
    read = min(prompt, count(used.get("cachedContentTokenCount")))
    return Usage(
        input=prompt - read + count(used.get("toolUsePromptTokenCount")),
        output=count(used.get("candidatesTokenCount")) + count(used.get("thoughtsTokenCount")),
        cache_read=read,
    )


GOOGLE: Final[Api] = Google()
