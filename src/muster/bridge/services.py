"""Which chat services there are: the module of each, and the extra that brings its client."""

import importlib
from typing import Final, NamedTuple

from muster.bridge.base import Bridge
from muster.errors import Broken
from muster.extra import bring


class Service(NamedTuple):
    """`text_chars` are what a post of it holds, as its bridge says (bridge/base.py, `Limits`), for
    whoever asks before it posts and has no client.
    """

    module: str
    extra: str
    text_chars: int


SERVICES: Final[dict[str, Service]] = {
    "discord": Service("muster.bridge.discord", "discord", 2_000),
    "matrix": Service("muster.bridge.matrix", "matrix", 16_000),
    "slack": Service("muster.bridge.slack", "slack", 4_096),
    "telegram": Service("muster.bridge.telegram", "telegram", 4_096),
}


def load(name: str) -> type[Bridge]:
    """The bridge of a service. Raises: Broken where its client is not installed."""
    service = SERVICES.get(name)
    if service is None:
        raise Broken(f"{name[:40]!r} is no chat service; there are {', '.join(SERVICES)}")
    try:
        module = importlib.import_module(service.module)
    except ImportError as error:
        raise Broken(
            f"the bridge of {name} needs {error.name}, which is not installed: "
            f"`{bring(service.extra)}`"
        ) from error
    found: type[Bridge] = module.BRIDGE
    return found
