"""Secrets in what a program says: their names stand in their place, before anything is cut.

Rule 1: a secret is looked for in the whole stream, across the borders of its pieces, so that no
cut (a line, the tail, an event) ever goes through one that was not replaced.
Rule 2: every line of a secret is a secret, and so are the spellings in which programs repeat it:
JSON, an address, base64, the quotes of a shell, of Python and of HTML.
Rule 3: secrets that overlap are replaced as one; at one place the longest counts.
Rule 4: only the standard library, because the shim imports this file on every start.

`Secrets` says what is hidden; a `Stream` hides it in bytes that come piece by piece. A stream holds
back what may be the beginning of a secret, and so never keeps more than the longest of them.

This is against accidents. Who spells a secret backwards is not noticed.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote, quote_plus, unquote

# A shorter value is more likely a word of the language than a key. Also what `_words` needs.
LENGTH_MIN: Final = 7
# The same for a part of a value: the last line of a key is often short.
PART_LENGTH_MIN: Final = 8
# Words of a header (`Authorization: Bearer …`) or a connection string; a passphrase has short ones.
WORD_LENGTH_MIN: Final = 16
# Chosen arbitrarily: a key ring of a thousand lines is a file, not a variable.
PARTS_MAX: Final = 1000
# Whole words of so many bytes, as `memoryview` names them.
_WORDS: Final[dict[int, Literal["I", "Q"]]] = {4: "I", 8: "Q"}
# Where `base64` and MIME break their lines.
_BASE64_LINE: Final = 76
_BREAK: Final = re.compile(r"\r\n|\r|\n|\\r\\n|\\n")
# Who logs in, and the password, in an address.
_LOGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s]*?([^:/@\s]+)@", re.IGNORECASE)
# What bash's `printf %q` and tools like it put a backslash before.
_SHELL_MARK: Final = re.compile(r"[^\w@%+=:,./-]", re.ASCII)
# What is around a key says that there is one, and is no secret.
_FENCE: Final = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]+-----")


class Span(NamedTuple):
    """Where one or several secrets lie, and whose name stands for them."""

    start: int
    end: int
    name: str


class Secrets:
    """What is hidden: values by name. `found` has the names of those that were met."""

    def __init__(self, values: Mapping[str, str]) -> None:
        forms: dict[bytes, str] = {}
        for name, value in values.items():
            for form in _forms(value):
                forms.setdefault(form, name)
        self.forms = sorted(forms.items(), key=lambda form: -len(form[0]))
        long = {form for form in forms if len(form) >= 15}
        self._words = {8: _words(long, 8), 4: _words(forms.keys() - long, 4)}
        self.found: set[str] = set()

    def text(self, text: str) -> str:
        """The text with names in the place of secrets; the text must be whole."""
        if not self.forms:
            return text
        raw = text.encode("utf-8", "surrogatepass")
        spans = self.spans(raw)
        if not spans:
            return text
        parts, at = [], 0
        for span in spans:
            parts += [raw[at : span.start], self.mark(span.name)]
            at = span.end
        return b"".join([*parts, raw[at:]]).decode("utf-8", "surrogatepass")

    def beside(self, values: Mapping[str, str]) -> "Secrets":
        """These and more: the forms of these are not made anew."""
        more, made = Secrets(values), Secrets({})
        forms = {**dict(more.forms), **dict(self.forms)}
        made.forms = sorted(forms.items(), key=lambda form: -len(form[0]))
        made._words = {size: words | more._words[size] for size, words in self._words.items()}
        return made

    def names_in(self, text: str) -> set[str]:
        """The names of the secrets in the text."""
        return {span.name for span in self.spans(text.encode("utf-8", "surrogatepass"))}

    def long_in(self, text: str) -> set[str]:
        """The names of secrets in the text that are too long to be a word of the language."""
        found = self.spans(text.encode("utf-8", "surrogatepass"))
        return {span.name for span in found if span.end - span.start >= WORD_LENGTH_MIN}

    def fields(self, value: Any) -> Any:
        """The same for every text in a value, names of fields included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.fields(key): self.fields(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.fields(each) for each in value]
        return value

    def mark(self, name: str) -> bytes:
        self.found.add(name)
        return f"[{name}]".encode()

    def spans(self, data: bytes) -> list[Span]:
        """Every secret in the data, those that overlap as one."""
        for size, words in self._words.items():
            whole = memoryview(data)[: len(data) // size * size]
            if not words.isdisjoint(whole.cast(_WORDS[size])):
                break
        else:
            return []
        # Each by itself: to make one pattern of the lines of a key took longer than all the rest.
        met: list[Span] = []
        for form, name in self.forms:
            at = data.find(form)
            while at >= 0:
                met.append(Span(at, at + len(form), name))
                at = data.find(form, at + 1)
        # Of those that begin at one place the longest is first: one secret may be the beginning of
        # another, whose rest would stay.
        met.sort(key=lambda span: (span.start, -span.end))
        found: list[Span] = []
        for span in met:
            if found and span.start < found[-1].end:
                found[-1] = found[-1]._replace(end=max(span.end, found[-1].end))
            else:
                found.append(span)
        return found

    def unfinished(self, data: bytes) -> tuple[int, str]:
        """Where what may be the beginning of a secret ends the data, and whose; else its length."""
        first, name = len(data), ""
        for form, whose in self.forms:
            start = _beginning(data, form)
            if start < first:
                first, name = start, whose
        return first, name


class Stream:
    """Bytes in, the same bytes without secrets out; `rest` gives what was held back at last."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._held = b""
        # So much of what is held belongs to a secret whose name was given out already.
        self._covered = 0

    def feed(self, data: bytes) -> bytes:
        if not self._secrets.forms:
            return data
        data = self._held + data
        end, _ = self._secrets.unfinished(data)
        return self._give(data, end)

    def rest(self) -> bytes:
        """The end of the stream. What began a secret and was cut off there is hidden as well."""
        data = self._held
        start, name = self._secrets.unfinished(data)
        cut_off = [Span(start, len(data), name)] if len(data) - start >= PART_LENGTH_MIN else []
        return self._give(data, len(data), cut_off)

    def _give(self, data: bytes, end: int, cut_off: Iterable[Span] = ()) -> bytes:
        """What is certain of the data up to `end`; the rest is held."""
        parts, at, covered = [], 0, self._covered
        for start, until, name in (*self._secrets.spans(data), *cut_off):
            if start >= end:
                break
            if start < covered:
                covered = max(covered, until)
                continue
            at = max(at, covered)
            parts += [data[at:start], self._secrets.mark(name)]
            covered = until
        parts.append(data[max(at, covered) : end])
        self._held, self._covered = data[end:], max(0, covered - end)
        return b"".join(parts)


def password(address: str) -> str:
    """What an address gives away of who logs in there; "" when nothing."""
    found = _LOGIN.match(address)
    return found[1] if found else ""


def _words(forms: Iterable[bytes], size: int) -> frozenset[int]:
    """What tells that data may hold a form, at a hundred times the speed of looking for the form.

    Wherever a form of at least 2n - 1 bytes lies, it covers a whole word of n bytes whose place is
    a multiple of n: so one of the words that begin at the first n places of the form.
    """
    return frozenset(
        word
        for form in forms
        for at in range(size)
        for word in memoryview(form[at : at + size]).cast(_WORDS[size])
    )


def _beginning(data: bytes, form: bytes) -> int:
    """The first place from which the data is the beginning of the form; its length when nowhere."""
    size = len(data)
    at = max(0, size - len(form) + 1)
    # Looked for by four bytes, which are rare; only the last three places are tried one by one.
    head = form[:4]
    while (at := data.find(head, at)) >= 0:
        if form.startswith(data[at:]):
            return at
        at += 1
    for at in range(max(0, size - len(form) + 1, size - 3), size):
        if form.startswith(data[at:]):
            return at
    return size


def _forms(value: str) -> Iterator[bytes]:
    """The value, its lines, and how programs spell them."""
    whole = value.strip()
    if len(whole) < LENGTH_MIN:
        return
    yield from _spelled(whole)
    yield from _base64(value)
    if whole != value:
        yield from _base64(whole)
    lines = [line.strip() for line in _BREAK.split(whole)]
    parts = [line for line in lines if len(line) >= PART_LENGTH_MIN and not _FENCE.fullmatch(line)]
    if len(lines) == 1:
        parts += [word for word in whole.split() if len(word) >= WORD_LENGTH_MIN]
    word = password(whole)
    parts += [each for each in {word, unquote(word)} if len(each) >= LENGTH_MIN]
    for part in parts[:PARTS_MAX]:
        yield from _spelled(part)


def _spelled(text: str) -> Iterator[bytes]:
    yield text.encode("utf-8", "surrogatepass")
    yield from _in_addresses(text)
    if not _SHELL_MARK.search(text):
        # No quotes and no escape has another way to write it; most lines of a key are such.
        return
    for ascii_only in (True, False):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "surrogatepass")
    # How a shell, Python, C and HTML write it.
    doubled = text.replace("\\", "\\\\")
    tags = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    written = [text.replace("'", "'\\''"), text.replace("'", "'\"'\"'")]
    written += [_SHELL_MARK.sub(r"\\\g<0>", text), doubled, doubled.replace("'", "\\'"), tags]
    for double in ("&quot;", "&#34;"):
        for single in ("&#x27;", "&#39;", "&apos;"):
            written.append(tags.replace('"', double).replace("'", single))
    for each in written:
        yield each.encode("utf-8", "surrogatepass")


def _in_addresses(text: str) -> Iterator[bytes]:
    # Python leaves a slash as it is, a browser these marks; a form has a plus for a space.
    for encoded, safe in ((quote, ""), (quote, "/"), (quote, "!'()*~"), (quote_plus, "")):
        address = encoded(text.encode("utf-8", "surrogatepass"), safe=safe)
        yield address.encode()
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), address).encode()


def _base64(text: str) -> Iterator[bytes]:
    """What base64 makes of the text wherever it stands in a longer one, and in lines."""
    raw = text.encode("utf-8", "surrogatepass")
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        # The first and the last characters depend on what stands beside it.
        stable = encoded[-(-8 * before // 6) : 8 * (before + len(raw)) // 6]
        if len(stable) >= PART_LENGTH_MIN:
            yield stable
            yield stable.translate(bytes.maketrans(b"+/", b"-_"))
    plain = base64.b64encode(raw)
    if len(plain) > _BASE64_LINE:
        for at in range(0, len(plain), _BASE64_LINE):
            line = plain[at : at + _BASE64_LINE].rstrip(b"=")
            if len(line) >= PART_LENGTH_MIN:
                yield line
