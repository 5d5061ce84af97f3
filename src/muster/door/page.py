"""The one page that people open: what a session proposes, and how it is ordered or refused.

Rule 1: it shows and does nothing: whoever opens it may be the agent itself, which has a browser as
its person has. A word about a proposal is an order, signed where the person's key is.
Rule 2: nothing of a proposal is markup, and no control of it reaches the page.
"""

from html import escape
from typing import Any, Final
from urllib.parse import parse_qs

from muster.door.daemon import Daemon
from muster.door.guard import Scope, Send, refuse
from muster.errors import MusterError, NotFound, Refused
from muster.printable import visible

PREFIX: Final = "/ask/"
# How often the page looks again by itself, in seconds.
_AGAIN_S: Final = 5
_ANSWER: Final = (
    "<p>Whoever opens this page may be any program on this machine, so it has no button. Answer in "
    "a terminal where your key is; you are shown the same text first:</p>"
    "<pre>muster answer {short} yes\nmuster answer {short} no</pre>"
)


async def show(daemon: Daemon, scope: Scope, send: Send) -> None:
    """Answer with the page of the proposal that the address names, whose key it has."""
    if scope["method"] not in ("GET", "HEAD"):
        await refuse(send, 405, "this page is read, and nothing else", (b"allow", b"GET, HEAD"))
        return
    asked = parse_qs(scope.get("query_string", b"").decode("ascii", "replace"), max_num_fields=4)
    keys = asked.get("key", [])
    proposal = scope["path"].removeprefix(PREFIX)
    try:
        if len(keys) != 1 or len(proposal) > 64 or len(keys[0]) > 64:
            raise NotFound("there is no such proposal")
        known = await daemon.ask("proposal.about", {"proposal": proposal, "key": keys[0]})
    except (NotFound, Refused):
        # The answer to the browser says it, and the same for both: none is given away.
        await refuse(send, 404, "there is no such proposal, or it is over")
    except MusterError as error:
        await refuse(send, 503, str(error), (b"retry-after", b"1"))
    else:
        body = page(known).encode()
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def page(known: dict[str, Any]) -> str:
    """The page as HTML: no script, no style, no form, nothing from elsewhere."""
    short = str(known["proposal"])[:12]
    rows = [("Who proposes it", f"{known['actor']}, session {known['session']}"),
            ("Why it needs you", known["because"])]  # fmt: skip
    if known["repo"]:
        rows.append(("Repository", f"{known['repo']} {known['base']}"))
    by, run = _text(known["by"]), _text(known["run"])
    match known["state"]:
        case "ordered":
            state, rest = "Ordered", f"<p>{by} ordered it: run <code>{run}</code>.</p>"
        case "refused":
            state, rest = "Refused", f"<p>{by} refused it.</p>"
        case _:
            state, rest = "Waits for you", _ANSWER.format(short=_text(short))
    head = "" if known["state"] != "open" else f'<meta http-equiv="refresh" content="{_AGAIN_S}">'
    facts = "".join(f"<dt>{_text(a)}</dt><dd>{_text(b)}</dd>" for a, b in rows)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"{head}<title>Muster: {state}</title></head><body><main>"
        f"<h1>{state}: run {_text(known['name'])}</h1><dl>{facts}</dl>"
        f"<h2>What is to run</h2><pre>{_text(known['spec'])}</pre>{rest}</main></body></html>\n"
    )


def _text(text: Any) -> str:
    return escape(visible(str(text)))
