"""The services of a machine: every part of the core, in the order in which they are made and begun.

A part finds those before it while it is made, and every other one later.
"""

from typing import Final

from muster.node.call.answers import Answers
from muster.node.call.authorize import Authorizer
from muster.node.call.frames import Frames
from muster.node.call.guests import Guests
from muster.node.call.router import Router
from muster.node.incarnations.clone import CloneDetector
from muster.node.incarnations.doubt import Doubt
from muster.node.incarnations.lives import Lives
from muster.node.incarnations.own_incarnation import OwnIncarnation
from muster.node.incarnations.republish import Republisher
from muster.node.incarnations.rollback import Rollbacks
from muster.node.part import Part
from muster.node.services.absent import Absent
from muster.node.services.chat import Chats
from muster.node.services.chat_asks import ChatAsks
from muster.node.services.chat_posts import ChatPosts
from muster.node.services.chat_topics import ChatTopics
from muster.node.services.conditions import Conditions
from muster.node.services.context import Contexts
from muster.node.services.erasure import Erasures
from muster.node.services.health import Health
from muster.node.services.hooks import Hooks
from muster.node.services.knocking import Knocking
from muster.node.services.lag import Lag
from muster.node.services.letter_waits import LetterWaits
from muster.node.services.letters import Letters
from muster.node.services.losses import Losses
from muster.node.services.mailbox import Mailbox
from muster.node.services.memory import Memory
from muster.node.services.mending import Mending
from muster.node.services.operator_end import OperatorEnds
from muster.node.services.pager import Pager
from muster.node.services.parcels import Parcels
from muster.node.services.peer_asks import PeerAsks
from muster.node.services.peer_files import PeerFiles
from muster.node.services.peer_work import PeerWork
from muster.node.services.presence import LastHeard
from muster.node.services.proving import Proving
from muster.node.services.quotas import Quotas
from muster.node.services.remote import RemoteWork
from muster.node.services.retention import Retention
from muster.node.services.same_files import SameFiles
from muster.node.services.schedules import Schedules
from muster.node.services.search import Search
from muster.node.services.sessions import Sessions
from muster.node.services.showings import Showings
from muster.node.services.sleepers import Sleepers
from muster.node.services.tail import Tail
from muster.node.services.triggers import Triggers
from muster.node.services.undelivered import Undelivered
from muster.node.services.wakes import Wakes
from muster.node.tasks.adoption import Adoptions
from muster.node.tasks.approvals import Approvals
from muster.node.tasks.asked_work import AskedWork
from muster.node.tasks.branches import Branches
from muster.node.tasks.delegations import Delegations
from muster.node.tasks.elections import Elections
from muster.node.tasks.followers import Followers
from muster.node.tasks.keepers import Keepers
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.pauses import Pauses
from muster.node.tasks.pots import Pots
from muster.node.tasks.proposals import Proposals
from muster.node.tasks.purse import Purse
from muster.node.tasks.runs import RunService
from muster.node.tasks.service import TaskService
from muster.node.tasks.trust import Trust
from muster.node.tasks.worker import WorkerService

PARTS: Final[tuple[type[Part], ...]] = (
    CloneDetector,
    OwnIncarnation,
    Pauses,
    Proving,
    Health,
    Conditions,
    Losses,
    Lives,
    Doubt,
    Parcels,
    Mending,
    Republisher,
    Rollbacks,
    OperatorEnds,
    Authorizer,
    Frames,
    Answers,
    Guests,
    Router,
    Ownership,
    Keepers,
    Trust,
    OwnerService,
    Followers,
    RunService,
    Branches,
    Approvals,
    Pots,
    Purse,
    WorkerService,
    Delegations,
    AskedWork,
    Proposals,
    Elections,
    Adoptions,
    TaskService,
    Letters,
    LetterWaits,
    PeerAsks,
    PeerWork,
    PeerFiles,
    Mailbox,
    Undelivered,
    Sleepers,
    Lag,
    Absent,
    Sessions,
    SameFiles,
    Hooks,
    Wakes,
    Memory,
    Showings,
    Quotas,
    Search,
    Erasures,
    Contexts,
    Retention,
    RemoteWork,
    Schedules,
    Triggers,
    LastHeard,
    Knocking,
    Tail,
    Pager,
    ChatAsks,
    ChatPosts,
    ChatTopics,
    Chats,
)
