"""The services of a machine: every part of the core, in the order in which they are made and begun.

A part finds those before it while it is made, and every other one later.
"""

from typing import Final

from muster.node.call.answers import Answers
from muster.node.call.authorize import Orders
from muster.node.call.frames import Frames
from muster.node.call.router import Router
from muster.node.incarnations.clone import Twins
from muster.node.incarnations.doubt import Doubt
from muster.node.incarnations.last_word import LastWords
from muster.node.incarnations.members import Members
from muster.node.incarnations.processes import Lives
from muster.node.incarnations.republish import Republisher
from muster.node.incarnations.setback import Setbacks
from muster.node.part import Part
from muster.node.services.health import Health
from muster.node.services.losses import Losses
from muster.node.services.mailbox import Mailbox
from muster.node.tasks.approvals import Questions
from muster.node.tasks.branches import Branches
from muster.node.tasks.followers import Following
from muster.node.tasks.owner import Owning
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.runs import Running
from muster.node.tasks.service import Work
from muster.node.tasks.worker import Working

PARTS: Final[tuple[type[Part], ...]] = (
    Twins,
    Members,
    Health,
    Losses,
    Lives,
    Doubt,
    Republisher,
    Setbacks,
    LastWords,
    Orders,
    Frames,
    Answers,
    Router,
    Ownership,
    Owning,
    Following,
    Running,
    Branches,
    Questions,
    Working,
    Work,
    Mailbox,
)
