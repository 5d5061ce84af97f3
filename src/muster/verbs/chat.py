"""Verbs about accounts of chat services: let one speak here, list them, take one back.

Rule 1: an operator orders the link on the machine that has the bridge. That shows a code once; the
account is whoever sends it to the bot in private, within ten minutes.
Rule 2: what an account may is said by grants, and the most that it can is little (fleet/chat.py).
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Struct, UnsetType

from muster.bridge.services import SERVICES
from muster.errors import Denied, NotFound, Refused
from muster.fleet import kinds
from muster.fleet.chat import CHAT, Chat, link_args
from muster.fleet.folds import TAKEN
from muster.fleet.grant import takes
from muster.fleet.name import Hex32
from muster.fleet.statement import open_statement
from muster.limits import GRANT_DAYS_MAX
from muster.node.services.chat import Chats
from muster.node.services.chat_posts import ChatPosts
from muster.node.verb import Column, Line
from muster.verbs.declaration import Call, Context, Core, Nothing, Request, data, opt, pos, verb

_WHAT = ("link", "unlink")


class Action(Request, frozen=True):
    action: Annotated[
        Literal["link", "list", "unlink"],
        pos("link SERVICE shows a code for an account to send; list; unlink SERVICE:ACCOUNT"),
    ]
    what: Annotated[
        str, pos("the service, such as matrix; or the account", actions=_WHAT, needed=_WHAT)
    ] = ""
    days: Annotated[
        int, opt("how long the link lasts", ge=1, le=GRANT_DAYS_MAX, actions=("link",))
    ] = 30


@verb(
    "chat", names="account", auth="local", runs="client", group="Messages", rows="chats", on="one",
    columns=(
        Column("account", form="bold"), Column("workspace", rank=2), Column("machine", "over"),
        Column("may", "may", "words", least=16), Column("by", "linked by", rank=1),
        Column("until_ms", "until", "ago"),
    ),
    nothing="No account of a chat is linked: `muster chat link SERVICE` links one.",
    says=(
        Line("Send this to the bot of {service}, in a private message ({until_ms:ago} it is "
             "void):\n", "code"),
        Line("  {code}\n", "code"),
        Line("Whoever sends it first is linked. It may then see how things are, and say that it "
             "looks at an incident.", "code"),
        Line("Nobody hears it now: {trouble}. Once that is mended the bridge begins again by "
             "itself, and where the code is void by then, ask for another one.", "trouble"),
        Line("{account} speaks here no more; {taken} links were taken back.", "account"),
    ),
)  # fmt: skip
def chat(context: Context, ask: Action) -> Any:
    """Let an account of a chat service speak here: link, list, unlink.

    The machine with the bridge shows the code: `[chat.matrix]` of its config.toml.

        muster chat link matrix
        muster chat list
        muster chat unlink matrix:@alice:example.org
    """
    if ask.action == "list":
        return {"chats": context.ask("chats", {}, on=context.on)}
    if ask.action == "unlink":
        return context.ask("chat.unlink", {"account": ask.what}, on=context.on)
    args = {"days": ask.days, "service": ask.what}
    return context.ask("chat.link", args, on=context.on)


class Link(Request, frozen=True):
    service: Annotated[str, data()]
    days: Annotated[int, data()]


class Code(Struct, frozen=True):
    """`trouble` is why the bridge hears nobody now, where it does not."""

    service: str
    code: str
    until_ms: int
    trouble: str | UnsetType = UNSET


@verb("chat.link", auth="order", object="service", operators_only=True)
def link(core: Core, call: Call, ask: Link) -> Code:
    """A code for the account that is to be linked; it is in no entry."""
    if ask.service not in SERVICES:
        raise NotFound(f"{ask.service[:40]!r} is no chat service; there are {', '.join(SERVICES)}")
    if ask.service not in core.part(ChatPosts).rooms:
        raise Refused(
            f"{core.name} has no bridge to {ask.service}: `[chat.{ask.service}]` in its "
            "config.toml, or --on the machine that has one"
        )
    if dict(call.args) != link_args(ask.service, ask.days) or not 1 <= ask.days <= GRANT_DAYS_MAX:
        raise Refused(f"a link is of a service and lasts 1 to {GRANT_DAYS_MAX} days")
    given = (ask.service, ask.days, call.statement, call.operator)
    code, until_ms = core.part(Chats).code(*given)
    trouble = core.part(ChatPosts).trouble(ask.service)
    return Code(ask.service, code, until_ms, trouble or UNSET)


class Linked(Struct, frozen=True):
    """`may` is what grants let it do now, each with its object where it is not all."""

    account: str
    workspace: str
    machine: str
    may: list[str]
    by: str
    until_ms: int
    id: str


@verb("chats", auth="local")
def listing(core: Core, call: Call, ask: Nothing) -> list[Linked]:
    """Every account that is linked, on whichever machine."""
    return [_shown(core, each) for _, each in sorted(core.roster.chats.items())]


def _shown(core: Core, link: Chat) -> Linked:
    now_ms = core.now.wall_ms
    may = {
        g.grant.verb if g.grant.object == "*" else f"{g.grant.verb}:{g.grant.object}"
        for g in core.roster.grants
        if g.grant.to == link.key and now_ms <= g.grant.until_ms
    }
    return Linked(
        f"{link.service}:{link.account}", link.workspace, core.membership.name_of(link.machine),
        sorted(may), core.roster.speaker(link.operator), link.until_ms, link.id,
    )  # fmt: skip


class Named(Request, frozen=True):
    account: Annotated[str, data()]


class Unlink(Named, frozen=True):
    id: Annotated[Hex32 | None, data(unsigned=True)] = None
    statement: Annotated[str, data(unsigned=True)] = ""


class Unlinked(Struct, frozen=True):
    account: str
    taken: int


@verb("chat.unlink", auth="order", object="account", target="hub", operators_only=True,
      signs="chat_taken")  # fmt: skip
def unlink(core: Core, call: Call, ask: Unlink) -> Unlinked:
    """Take a link back; its own statement, which the command signed, does it."""
    signed = open_statement(ask.statement.encode(), core.membership.fleet)
    if signed.operator not in core.roster.operators:
        raise Denied("a link is taken back by an operator")
    if ask.id is None or not takes(signed, ask.id):
        raise Refused("the statement is about another link; use `muster chat unlink`")
    call.write(kinds.GrantTake(ask.id, ask.statement))
    return Unlinked(ask.account, 1)


class Ids(Struct, frozen=True):
    ids: list[str]


@verb("chat.taken", auth="local")
def to_take(core: Core, call: Call, ask: Named) -> Ids:
    """The links to take back of an account: on every machine that heard it."""
    service, _, account = ask.account.partition(":")
    what = {"service": service, "account": account}
    # Older links of it, too: with the newest gone, the one before it would count again.
    ids = sorted({
        id_
        for operator in core.roster.operators_ever
        for (id_,) in core.tables.distinct(CHAT, ("id",), operator=operator, **what)
        if not any(core.roster.took(row.taker, id_) for row in core.tables.rows(TAKEN, id=id_))
    })  # fmt: skip
    if not ids:
        raise NotFound(f"{ask.account[:80]!r} is not linked; `muster chat list` lists who is")
    return Ids(ids)
