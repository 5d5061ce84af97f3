"""Whether an assignment can be enclosed as its order asks, before anything of it begins.

Rule 1: what a machine refuses here is no fault of anybody's: another machine is asked.
Rule 2: nothing is looked at on a disk in a step. Whoever starts the attempt decides again
        (`task/enclosure.py`), with where paths lead.
"""

from typing import NamedTuple

from muster.task.enclosure import Doer, Here, Terms, decide
from muster.task.route import NOOP, cannot_enclose
from muster.task.worker import Assignment


class Enclosures(NamedTuple):
    """What the owner of this machine says, and what is so on it."""

    terms: Terms
    here: Here

    def refusal(self, given: Assignment, said: str | None) -> str:
        """Why this is not done here, or "". `said` is what the machine says of its sandbox."""
        if given.assign.agent == NOOP:
            return ""
        doer = Doer(given.assign.agent, foreign=given.foreign)
        # A daemon that has told nothing yet has not tried yet.
        here = self.here._replace(cannot="" if said is None else cannot_enclose(said))
        return decide(given.opened.template, doer, self.terms, here).refusal
