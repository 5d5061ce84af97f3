"""Texts that are keys: refused before they become an entry, which nobody can take back.

Rule 1: a pattern is anchored in what only such a key has: a file is never refused for a word.
Rule 2: what is found is named by its sort and line, and never shown.
Rule 3: a key that looks like nothing (`password = …`) is doubtful: it is told, not refused.
Rule 4: a pattern is tried only where its own letters stand (`_LETTERS`): to try all of them at each
        place of a text takes a second for half a megabyte.
"""

import re
from collections.abc import Iterator
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
# The letters that a text of each sort has in it; it begins with them, but for an address.
_LETTERS: Final[dict[str, tuple[str, ...]]] = {
    "a private key": ("-----BEGIN ",),
    "an AWS access key": ("AKIA", "ASIA", "ABIA", "ACCA"),
    "a GitHub token": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    "a fine-grained GitHub token": ("github_pat_",),
    "a GitLab token": ("glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glsoat-"),
    "an Anthropic key": ("sk-ant-",),
    "an OpenAI key": ("sk-proj-", "sk-svcacct-", "sk-admin-"),
    "an older OpenAI key": ("sk-",),
    "a Google key": ("AIza",),
    "a Google OAuth secret": ("GOCSPX-",),
    "a Slack token": tuple(f"xox{letter}-" for letter in "abeoprs"),
    "a Stripe key": ("rk_live_", "sk_live_"),
    "an npm token": ("npm_",),
    "a PyPI token": ("pypi-AgE",),
    "a Hugging Face token": ("hf_",),
    "a JSON web token": ("eyJ",),
    "a password in an address": ("://",),
    "an age key": ("AGE-SECRET-KEY-1",),
}  # fmt: skip
_COMPILED: Final = {sort: re.compile(pattern) for sort, pattern in _SORTS.items()}
# How far from its letters a text may begin and end, where it does not begin with them: so far it
# is looked through for each of them, which may be all that a text has.
_AROUND: Final = {"a password in an address": (22, len("://") + 80 + len(":") + 80 + len("@w"))}
# How much of a text is needed to know it.
_WHOLE: Final = 8 * 1024
_DOUBTFUL: Final = re.compile(
    r"(?i)\b(?:password|passwd|secret|api[_-]?key|auth[_-]?token|access[_-]?token)\b"
    r"[\"']?\s{0,3}[:=]\s{0,3}[\"']?[^\s\"'$<{(]{8,}"
)
# What every doubtful text has in it, whatever its case.
_DOUBTFUL_WORDS: Final = ("passw", "secret", "key", "token")


class Found(NamedTuple):
    """What was found, and where: never what it is."""

    sort: str
    line: int


def find_secret(text: str) -> Found | None:
    """The first text in it that is a key, where there is one."""
    hits = [(hit, sort) for sort in _SORTS if (hit := _first(text, sort)) is not None]
    if not hits:
        return None
    at, sort = min(hits, key=lambda hit: hit[0])
    return Found(sort, text.count("\n", 0, at) + 1)


class Search:
    """Looks for a key in a text that comes in parts, each of which may hold half of one."""

    def __init__(self) -> None:
        self._tail, self._lines = "", 0

    def feed(self, part: bytes) -> Found | None:
        """The first key in what came so far, when this part makes it one."""
        # Each byte a letter: no part ends within one, and keys have none but the plainest.
        text = self._tail + part.decode("latin-1")
        found = find_secret(text)
        if found is not None:
            return Found(found.sort, self._lines + found.line)
        self._tail = text[-_WHOLE:]
        self._lines += text.count("\n", 0, len(text) - len(self._tail))
        return None


def _first(text: str, sort: str) -> int | None:
    """Where the first key of a sort begins."""
    pattern, around = _COMPILED[sort], _AROUND.get(sort)
    found = []
    for letters in _LETTERS[sort]:
        if letters not in text:
            continue
        for at in _places(text, letters):
            hit = pattern.match(text, at) if around is None else (
                pattern.search(text, max(0, at - around[0]), at + around[1])
            )  # fmt: skip
            if hit is not None:
                found.append(hit.start())
                break
    return min(found, default=None)


def _places(text: str, letters: str) -> Iterator[int]:
    at = text.find(letters)
    while at >= 0:
        yield at
        at = text.find(letters, at + 1)


def find_doubtful(text: str) -> Found | None:
    """The first line in it that looks as if it gave a password, where there is one."""
    # To try the pattern at each word of a text costs more than all else that is done with a file.
    small = text.casefold()
    hit = _DOUBTFUL.search(text) if any(word in small for word in _DOUBTFUL_WORDS) else None
    return None if hit is None else Found("a password", text.count("\n", 0, hit.start()) + 1)
