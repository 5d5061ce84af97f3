"""Every store of the contract: in a file and in memory."""

import pytest
from tests.store.world import Machine

from muster.store.store import MEMORY


@pytest.fixture(params=["file", "memory"])
def machines(request, tmp_path):
    """Make machine number n."""
    made = []

    def make(number):
        path = tmp_path / f"{number}.db" if request.param == "file" else MEMORY
        made.append(Machine(number, path))
        return made[-1]

    yield make
    for machine in made:
        machine.store.close()
