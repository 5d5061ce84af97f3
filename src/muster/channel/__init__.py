"""How bytes travel: one file per channel. `CHANNELS` lists them, `base` has their contracts.

A channel is one file and one line here. The file has `Options`, which is what `[channel.<name>]` in
config.toml may say, and `open_channel`; it is read when the channel is used, so that the list costs
nothing. A peer is tried over the channels in the order of this list (node/links/paths.py).

Two ways to carry frames have no line. `ipc` is the door for the programs of this machine: it proves
a user and leads to no machine. `relay` is a link inside two others: no address leads there, and
node/links/paths.py has it asked for where no channel leads to a machine.
"""

from importlib import import_module
from typing import Any, Final, Literal, NamedTuple

from muster.errors import Broken
from muster.extra import bring


class Spec(NamedTuple):
    """One channel; `extra` names what `pip install muster-fleet[extra]` has to bring for it."""

    name: str
    shape: Literal["link", "post"]
    module: str
    extra: str = ""

    def load(self) -> Any:
        """The file of the channel. Raises: Broken where what it stands on is not installed."""
        try:
            return import_module(self.module)
        except ModuleNotFoundError as error:
            if not self.extra:
                raise
            raise Broken(
                f"the channel {self.name} needs more than is installed here ({error.name}): "
                f"{bring(self.extra)}"
            ) from error


# The channel that every machine has, and the one that machines and homes of before 0.2 know.
FIRST: Final = "http"

CHANNELS: Final[tuple[Spec, ...]] = (
    Spec("http", "link", "muster.channel.http"),
    Spec("nats", "post", "muster.channel.nats", extra="nats"),
    Spec("ssh", "link", "muster.channel.ssh", extra="ssh"),
    Spec("drop", "post", "muster.channel.drop", extra="drop"),
    Spec("git", "post", "muster.channel.git", extra="sealed"),
    Spec("cloud", "post", "muster.channel.cloud", extra="sealed"),
)
