"""Texts that are keys: refused before they become an entry, which nobody can take back.

Rule 1: a pattern is anchored in what only such a key has: a file is never refused for a word.
Rule 2: what is found is named by its sort and line, and never shown.
Rule 3: a key that looks like nothing (`password = …`) is doubtful: it is told, not refused.
"""

import re
from typing import Final, NamedTuple

_EDGE: Final = r"(?<![A-Za-z0-9_-])"
_END: Final = r"(?![A-Za-z0-9_-])"
_SORTS: Final[dict[str, str]] = {
    "a private key": r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----",
    "an AWS access key": _EDGE + r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}" + _END,
    "a GitHub token": _EDGE + r"gh[pousr]_[A-Za-z0-9]{36,255}" + _END,
    "a fine-grained GitHub token": _EDGE + r"github_pat_[A-Za-z0-9_]{50,255}" + _END,
    "a GitLab token": _EDGE + r"gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_-]{20,300}",
    "an Anthropic key": _EDGE + r"sk-ant-[a-z0-9]{2,12}-[A-Za-z0-9_-]{20,200}",
    "an OpenAI key": _EDGE + r"sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,300}",
    "an older OpenAI key": _EDGE + r"sk-[A-Za-z0-9]{48}" + _END,
    "a Google key": _EDGE + r"AIza[0-9A-Za-z_-]{35}" + _END,
    "a Google OAuth secret": _EDGE + r"GOCSPX-[A-Za-z0-9_-]{28}" + _END,
    "a Slack token": _EDGE + r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",
    "a Stripe key": _EDGE + r"[rs]k_live_[0-9A-Za-z]{20,250}" + _END,
    "an npm token": _EDGE + r"npm_[A-Za-z0-9]{36}" + _END,
    "a PyPI token": _EDGE + r"pypi-AgE[A-Za-z0-9_-]{50,400}",
    "a Hugging Face token": _EDGE + r"hf_[A-Za-z0-9]{34,40}" + _END,
    "a JSON web token": _EDGE
    + r"eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{20,}",
    "a password in an address": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,80}"
    r":[^\s/:@$<{*]{6,80}@[A-Za-z0-9]",
    "an age key": _EDGE + r"AGE-SECRET-KEY-1[0-9A-Z]{58}" + _END,
}  # fmt: skip
_SURE: Final = re.compile("|".join(f"({each})" for each in _SORTS.values()))
_DOUBTFUL: Final = re.compile(
    r"(?i)\b(?:password|passwd|secret|api[_-]?key|auth[_-]?token|access[_-]?token)\b"
    r"[\"']?\s{0,3}[:=]\s{0,3}[\"']?[^\s\"'$<{(]{8,}"
)


class Found(NamedTuple):
    """What was found, and where: never what it is."""

    sort: str
    line: int


def find_secret(text: str) -> Found | None:
    """The first text in it that is a key, where there is one."""
    hit = _SURE.search(text)
    if hit is None:
        return None
    sort = list(_SORTS)[next(n for n, group in enumerate(hit.groups()) if group is not None)]
    return Found(sort, text.count("\n", 0, hit.start()) + 1)


def find_doubtful(text: str) -> Found | None:
    """The first line in it that looks as if it gave a password, where there is one."""
    hit = _DOUBTFUL.search(text)
    return None if hit is None else Found("a password", text.count("\n", 0, hit.start()) + 1)
