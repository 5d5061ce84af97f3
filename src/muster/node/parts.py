"""The services of a machine: every part of the core, in the order in which they are made and begun.

A part finds those before it while it is made, and every other one later.
"""

from typing import Final

from muster.node.branches import Branches
from muster.node.call import Answers
from muster.node.doubt import Doubt
from muster.node.following import Following
from muster.node.frames import Frames
from muster.node.health import Health
from muster.node.last_word import LastWords
from muster.node.lives import Lives
from muster.node.losses import Losses
from muster.node.mailbox import Mailbox
from muster.node.member import Members
from muster.node.order import Orders
from muster.node.ownership import Ownership
from muster.node.owning import Owning
from muster.node.part import Part
from muster.node.question import Questions
from muster.node.republish import Republisher
from muster.node.router import Router
from muster.node.running import Running
from muster.node.setback import Setbacks
from muster.node.twin import Twins
from muster.node.work import Work
from muster.node.working import Working

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
