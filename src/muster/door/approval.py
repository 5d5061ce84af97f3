"""What an agent asked for needs a person: the page that shows it, by an elicitation of a URL.

Rule 1: a client that can open pages for its person (2026-07-28, `elicitation.url`) is asked to,
once for each call; every other one gets the address and the command in the answer, at once.
Rule 2: "accept" says that the page was opened. The call then waits a while for the person's word,
which comes from the daemon and from nowhere else.
"""

from typing import Any, Final

import mcp_types as types
from mcp.server.context import ServerRequestContext

Context = ServerRequestContext[Any, Any]
_KEY: Final = "approve"
_MODERN: Final = "2026-07-28"


def of(value: Any) -> dict[str, Any] | None:
    """The proposal in an answer that waits for a person; None in every other one."""
    found = value.get("proposal") if isinstance(value, dict) else None
    return found if isinstance(found, dict) and "page" in found else None


def address(asked: dict[str, Any], context: Context) -> None:
    """Say the whole address of its page: by the name that its client knows us by."""
    host = context.request.headers["host"]  # type: ignore[union-attr]
    asked["url"] = f"http://{host}{asked['page']}"


def request(
    asked: dict[str, Any], context: Context, params: types.CallToolRequestParams
) -> types.InputRequiredResult | None:
    """What a client is asked to show its person; None where it cannot, or did, or no need is."""
    can = context.session.client_capabilities
    able = can is not None and can.elicitation is not None and can.elicitation.url is not None
    if asked["state"] != "open" or params.input_responses or not able:
        return None
    if context.protocol_version < _MODERN:
        return None
    message = (
        f"An agent proposes a run, which needs your order. The page shows it; "
        f"`{asked['command']}` in a terminal orders it as yours, and `no` refuses it."
    )
    page = types.ElicitRequestURLParams(message=message, url=asked["url"])
    return types.InputRequiredResult(input_requests={_KEY: types.ElicitRequest(params=page)})


def was_opened(params: types.CallToolRequestParams) -> bool:
    """Whether the client says that its person went to the page."""
    said = (params.input_responses or {}).get(_KEY)
    return isinstance(said, types.ElicitResult) and said.action == "accept"
