"""The ways to run an agent, by the names that the catalogue gives under `protocol`.

Another way is one file with a `Driver`, its row here, and entries of the catalogue.
"""

from typing import Final

from muster.agent.driver import Driver
from muster.agent.headless import HeadlessDriver
from muster.agent.relay import RelayDriver
from muster.agent.shell import ShellDriver

DRIVERS: Final[dict[str, type[Driver]]] = {
    "acp": RelayDriver,
    "headless": HeadlessDriver,
    "shell": ShellDriver,
}
