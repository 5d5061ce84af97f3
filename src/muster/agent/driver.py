"""The program that the shim starts to talk with a protocol agent.

Rule 1: the foreign protocol library is imported here at the latest possible moment, so that a
missing one is a sentence in the outcome, and the daemon and the shim never pay for it.

Standard input and output are those of the shim (see shim.py): the order first, then answers and
a cancel; out go events and one outcome.
"""

import asyncio

from muster.agent.wire import Line


async def drive() -> None:
    line = await Line.open()
    order = await line.hear()
    if order is None:
        return
    try:
        # Heavy (0.6 s) and optional: only an attempt that needs it pays for it.
        from muster.agent import acp  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in {"acp", "pydantic"}:
            raise
        line.close(
            {
                "status": "error",
                "summary": "This machine cannot drive agents over ACP: "
                "install the extra with `pip install 'muster-fleet[acp]'`.",
            }
        )
        return
    line.close(await acp.attempt(order, line))


def main() -> None:
    asyncio.run(drive())
