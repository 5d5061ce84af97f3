"""The short-lived program that tells one service something: `python -m muster.node.notify_child`.

Rule 1: what it is to do comes on standard input as JSON, addresses with their passwords among it;
its arguments and its environment have nothing of that.
Rule 2: its answer is one line of JSON, `ok` and a `reason`, in which no part of the address stands
that the service itself would not show.
Rule 3: it writes no file and reads none: what Apprise keeps between calls it keeps in memory.

It imports `apprise` and nothing of Muster: blocking sockets and a foreign library's threads stay
out of the daemon, which ends it when its time is up.
"""

import importlib
import json
import re
import sys
import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote, unquote_plus

_REASON_CHARS_MAX: Final = 300
_ASK_BYTES_MAX: Final = 64 * 1024
UNKNOWN: Final = "this is no address of a service that Apprise knows"
# Shorter parts of an address are words of the language: they are hidden where they stand alone, and
# the service does not show them.
_PART_CHARS_MIN: Final = 5
# What Apprise says of an error of the network is at its lowest level, among much else.
_CAUSE: Final = "Exception:"
_ERRNO: Final = re.compile(r"\[Errno -?[0-9]+\] [A-Za-z ,-]+")
# Behind who logs in, where somebody does.
_HOST: Final = re.compile(r"(?:[^/?#]*@)?([^/:?#@]+)")
_ALONE: Final = r"(?<![A-Za-z0-9]){}(?![A-Za-z0-9])"
_BETWEEN: Final = re.compile(r"[/:@?&=,;#]+")


def _said(ask: dict[str, Any]) -> tuple[bool, str]:
    if "get" in ask:
        return _got(str(ask["get"]))
    try:
        # An extra.
        apprise: Any = importlib.import_module("apprise")
    except ImportError:
        return False, "the library Apprise is not installed"
    url = str(ask["read"] if "read" in ask else ask["url"])
    asset = apprise.AppriseAsset(
        app_id="Muster",
        app_desc="Muster",
        app_url="",
        storage_mode=apprise.PersistentStoreMode.MEMORY,
    )
    service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if service is None:
        return False, UNKNOWN
    if "read" in ask:
        return True, ""
    # Else lines of a mail are joined, and signs in a text mean something.
    text = apprise.NotifyFormat.TEXT
    service.notify_format = text
    teller = apprise.Apprise(asset=asset)
    teller.add(service)
    with apprise.LogCapture(level=apprise.logging.DEBUG, fmt="%(levelname)s %(message)s") as log:
        ok = bool(teller.notify(title=str(ask["title"]), body=str(ask["body"]), body_format=text))
        lines = log.getvalue().splitlines()
    shown = service.url(privacy=True)
    return ok, "" if ok else _masked(_why(lines), url, shown)


def _why(lines: list[str]) -> str:
    """What of the library's log says why it failed."""
    found = []
    for line in lines:
        level, _, text = line.partition(" ")
        if _CAUSE in text:
            # A library below names the whole address before it comes to the point.
            errno = _ERRNO.search(text)
            found.append(errno[0] if errno else text.partition(_CAUSE)[2].strip())
        elif level in ("ERROR", "WARNING"):
            found.append(text.strip())
    return "; ".join(dict.fromkeys(found)) or "the service did not take it, and did not say why"


def _writings(piece: str) -> set[str]:
    """How a part of an address is written by whoever takes it apart and puts it together."""
    found = {piece}
    for plain in (unquote(piece), unquote_plus(piece)):
        found |= {plain, quote(plain), quote(plain, safe=""), quote_plus(plain)}
    return found


def _masked(text: str, url: str, shown: str) -> str:
    """A text without the parts of an address that are not for everybody, cut."""
    rest = url.partition("://")[2]
    found = _HOST.match(rest)
    host = found[1] if found else ""
    parts = {each for piece in _BETWEEN.split(rest) if piece for each in _writings(piece)}
    # A token may stand where other addresses have their host: the service itself knows.
    if host and host in shown:
        parts.discard(host)
    public = set(_BETWEEN.split(shown))
    hidden = [
        re.escape(part) if len(part) >= _PART_CHARS_MIN else _ALONE.format(re.escape(part))
        for part in sorted(parts, key=len, reverse=True)
        if len(part) >= _PART_CHARS_MIN or part not in public
    ]
    if hidden:
        text = re.sub("|".join(hidden), "***", text, flags=re.IGNORECASE)
    return text[:_REASON_CHARS_MAX]


def _got(url: str) -> tuple[bool, str]:
    """Whether an address of the web answers."""
    if not url.startswith(("http://", "https://")):
        return False, "this is no address of the web"
    try:
        with urllib.request.urlopen(url, timeout=15) as answer:  # noqa: S310 - http alone, see above
            answer.read(1)
    except urllib.error.HTTPError as error:
        return False, f"it answers {error.code}"
    except (urllib.error.URLError, OSError, ValueError) as error:
        return False, _masked(str(getattr(error, "reason", error)), url, "")
    return True, ""


def main() -> None:
    raw = sys.stdin.buffer.read(_ASK_BYTES_MAX + 1)
    try:
        ok, reason = _said(json.loads(raw))
    except (ValueError, KeyError, TypeError) as error:
        ok, reason = False, f"it was asked for nothing that can be done ({type(error).__name__})"
    json.dump({"ok": ok, "reason": reason}, sys.stdout)


if __name__ == "__main__":
    main()
