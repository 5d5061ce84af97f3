"""Accounts of chats: what links one, what it may then, and when that is over."""

from typing import Any

import msgspec
import pytest
from tests.fleet.world import (
    ALICE,
    BUILD,
    FLEET_ID,
    MALLORY,
    NONCE,
    NOW,
    STUDIO,
    World,
    give,
    small_fleet,
    stream,
    take,
)
from tests.promise import proves

from muster.errors import Denied, Malformed, Refused
from muster.fleet import kinds
from muster.fleet.acknowledgement import name_of
from muster.fleet.chat import (
    CHAT,
    CHAT_ACKNOWLEDGE,
    CHAT_ACKNOWLEDGED,
    CHAT_LINK,
    CODE_CHARS,
    CODE_MS,
    DAY_MS,
    DEFAULT,
    Chat,
    ChatAcknowledged,
    ChatLinked,
    chat_actor,
    chat_key,
    code_form,
    code_hash,
    code_of,
    is_chat_actor,
    link_args,
)
from muster.fleet.document import document_id
from muster.fleet.grant import Grant
from muster.fleet.kinds import Told
from muster.fleet.statement import open_statement, sign_statement
from muster.limits import CLOCK_SKEW_MS

SERVICE, WORKSPACE, EVA = "matrix", "example.org", "@eva:example.org"
DAYS = 30
KEY = f"chat.{SERVICE}.{EVA}@{STUDIO.machine}"
CLASS = "class:edit-outside"


def order(
    *, days: int = DAYS, service: str = SERVICE, verb: str = CHAT_LINK, target: str = "",
    by: Any = ALICE, at_ms: int = NOW, nonce: bytes = NONCE,
) -> str:  # fmt: skip
    return sign_statement(
        by.statement, fleet=FLEET_ID, verb=verb, object=service, nonce=nonce,
        target=target or STUDIO.machine, args=link_args(service, days), issued_ms=at_ms,
        until_ms=at_ms + 60_000,
    ).decode()  # fmt: skip


def linked(statement: str, **changed: Any) -> ChatLinked:
    body = ChatLinked(EVA, "0" * 64, DAYS, SERVICE, statement, WORKSPACE)
    return msgspec.structs.replace(body, **changed)


def with_link(at_ms: int = NOW) -> tuple[World, str]:
    """A fleet where Eva was linked, and the id of that link."""
    world = small_fleet()
    return world, link(world, at_ms)


def link(world: World, at_ms: int, days: int = DAYS, **changed: Any) -> str:
    statement = order(at_ms=at_ms, days=days)
    body = linked(statement, days=days, **changed)
    world.write(STUDIO, CHAT_LINK, body, now_ms=at_ms)
    assert world.skipped == []
    return document_id(statement.encode())


def given(world: World, at_ms: int, object: str = CLASS, verb: str = "approve") -> str:
    """What an operator gave Eva then, for a year; its id."""
    body = give(Grant(object, KEY, NOW + 365 * DAY_MS, verb), issued_ms=at_ms)
    world.write(BUILD, kinds.GRANT_GIVE, body, now_ms=at_ms)
    return document_id(body.statement.encode())


def may(world: World, at_ms: int, verb: str = "approve", object: str = CLASS) -> bool:
    return world.roster.may(KEY, verb, object, at_ms)


@proves("chat.linked-by-code")
def test_a_link_is_an_account_in_its_place_on_the_machine_that_heard_it():
    world, id_ = with_link()
    until_ms = NOW + DAYS * DAY_MS
    chat = Chat(id_, ALICE.key, STUDIO.machine, SERVICE, WORKSPACE, EVA, NOW, until_ms)
    assert world.roster.chats == {KEY: chat}
    assert world.roster.chat(SERVICE, WORKSPACE, EVA, STUDIO.machine) == chat
    for where in (
        ("telegram", WORKSPACE, EVA, STUDIO.machine), (SERVICE, "other.org", EVA, STUDIO.machine),
        (SERVICE, WORKSPACE, "@eva:other.org", STUDIO.machine), (SERVICE, WORKSPACE, "", "hub"),
        (SERVICE, WORKSPACE, EVA, BUILD.machine), (SERVICE, WORKSPACE, "eva\n", STUDIO.machine),
    ):  # fmt: skip
        with pytest.raises(Denied, match="not linked"):
            world.roster.chat(*where)
    for verb in DEFAULT:
        assert may(world, until_ms, verb, "anything")
        assert not may(world, until_ms + 1, verb, "anything")
    assert not may(world, NOW)


@proves("chat.linked-by-code", "chat.bounded-authority")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(linked("no statement"), "bad-statement", id="no statement"),
        pytest.param(linked(order(verb="chat.unlink")), "other-terms", id="another verb"),
        pytest.param(linked(order(target=BUILD.machine)), "other-terms", id="another machine"),
        pytest.param(linked(order(target="fleet")), "other-terms", id="all machines"),
        pytest.param(linked(order(days=1)), "other-terms", id="other days"),
        pytest.param(linked(order(service="slack")), "other-terms", id="another service"),
        pytest.param(
            linked(order(at_ms=NOW - CODE_MS - CLOCK_SKEW_MS - 1)), "late", id="an old order"
        ),
    ],
)
def test_what_is_no_order_for_this_link_links_nobody(body, reason):
    world = small_fleet()
    world.write(STUDIO, CHAT_LINK, body)
    assert world.skipped == [reason]
    assert not list(world.select(CHAT))
    assert world.roster.chats == {}


@proves("chat.linked-by-code")
def test_an_order_is_of_an_operator_and_links_one_account():
    world = small_fleet()
    world.write(STUDIO, CHAT_LINK, linked(order(by=MALLORY)))
    assert world.roster.chats == {}
    statement = order(at_ms=NOW - CODE_MS - CLOCK_SKEW_MS)
    world.write(STUDIO, CHAT_LINK, linked(statement))
    world.write(STUDIO, CHAT_LINK, linked(statement, account="@mallory:example.org"))
    assert world.skipped == ["code-used"]
    assert set(world.roster.chats) == {KEY}
    # In another stream of the machine nobody sees that it was used: then it links nobody.
    again = stream(STUDIO, incarnation=1)
    world.write(again, CHAT_LINK, linked(statement))
    assert set(world.roster.chats) == {KEY}, "the same words again"
    third = stream(STUDIO, incarnation=2)
    world.write(third, CHAT_LINK, linked(statement, account="@mallory:example.org"))
    assert world.roster.chats == {}


@proves("chat.linked-by-code", "chat.bounded-authority")
def test_what_was_given_ends_with_the_link_that_stood_then_and_comes_back_with_no_other():
    """Eva is linked, given a class, unlinked or forgotten, and linked again."""
    day = NOW + DAY_MS
    for how in ("taken", "over"):
        world, first = with_link()
        given(world, NOW - CLOCK_SKEW_MS - 1)
        assert not may(world, day), "before anybody was linked"
        given(world, day)
        assert may(world, day)
        assert may(world, NOW + DAYS * DAY_MS)
        assert not may(world, NOW + DAYS * DAY_MS + 1)
        if how == "taken":
            world.write(BUILD, kinds.GRANT_TAKE, take(first))
            assert world.roster.chats == {}
            assert not may(world, day)
        later = NOW + (2 if how == "taken" else 40) * DAY_MS
        given(world, later - 1)
        link(world, later)
        assert may(world, later, "status", "*")
        assert not may(world, later), how
        given(world, later)
        assert may(world, later)
        assert may(world, later + DAYS * DAY_MS)


@proves("chat.linked-by-code")
def test_an_account_that_is_linked_anew_in_time_keeps_what_it_was_given_as_long_as_it_had_it():
    world, first = with_link()
    given(world, NOW + 1)
    end = NOW + DAYS * DAY_MS
    link(world, NOW + DAY_MS)
    assert may(world, end)
    assert not may(world, end + 1)
    assert may(world, end + 1, "status", "*")
    # One that lasts less than another changes nothing.
    link(world, NOW + 2 * DAY_MS, days=1)
    assert world.roster.chats[KEY].until_ms == NOW + (DAYS + 1) * DAY_MS
    world.write(BUILD, kinds.GRANT_TAKE, take(first))
    assert not may(world, NOW + 3 * DAY_MS)
    assert may(world, NOW + 3 * DAY_MS, "status", "*")


@proves("chat.linked-by-code", "chat.bounded-authority")
def test_a_grant_by_a_clock_that_is_behind_counts_or_is_refused():
    """Whose clock is behind may give before the link; none that is over since is meant by that."""
    skew = CLOCK_SKEW_MS
    for at_ms, again_ms, counts in (
        (NOW - 1, 0, True), (NOW - skew, 0, True), (NOW - skew - 1, 0, False),
        # Linked anew: what was given before that belongs to the link that is over.
        (NOW + 1, NOW + 2, False), (NOW - 1, NOW + 2, False), (NOW + 3, NOW + 2, True),
    ):  # fmt: skip
        world, first = with_link()
        if again_ms:
            world.write(BUILD, kinds.GRANT_TAKE, take(first))
            link(world, again_ms)
        grant = Grant(CLASS, KEY, NOW + DAY_MS, "approve")
        body = give(grant, issued_ms=at_ms)
        signed = open_statement(body.statement.encode(), FLEET_ID)
        if counts:
            world.roster.check_give(signed, grant)
        else:
            with pytest.raises(Refused, match="would count nowhere"):
                world.roster.check_give(signed, grant)
        world.write(BUILD, kinds.GRANT_GIVE, body)
        assert may(world, NOW + 4) is counts, (at_ms - NOW, again_ms)


@proves("chat.linked-by-code")
def test_what_was_given_to_an_account_in_one_place_is_not_anothers_who_is_called_so():
    world, _ = with_link()
    given(world, NOW)
    link(world, NOW + 1, workspace="other.org")
    assert world.roster.chats[KEY].workspace == "other.org"
    assert not may(world, NOW + 1)


@proves("chat.bounded-authority")
def test_nothing_that_is_signed_gives_an_account_more_than_a_chat_may():
    world, _ = with_link()
    for number, (verb, object) in enumerate((
        ("run", "*"), ("*", "*"), ("grant", "*"), ("secret", "*"), ("approve", "*"),
        ("approve", "0" * 32), ("approve", "class:spend"), ("approve", "class:"),
    )):  # fmt: skip
        grant = Grant(object, KEY, NOW + DAY_MS, verb)
        world.write(BUILD, kinds.GRANT_GIVE, give(grant, nonce=bytes([number]) * 16))
        assert not may(world, NOW, verb, object), (verb, object)
    given(world, NOW)
    held = {g.grant.verb for g in world.roster.grants if g.grant.to == KEY}
    assert held == {*DEFAULT, "approve"}


def test_an_account_is_called_by_what_its_service_calls_it_and_in_headers_by_nothing():
    assert chat_key(SERVICE, EVA, STUDIO.machine) == KEY
    for account in ("", "eva eva", "ё", "a" * 101, "a\n", "a,b"):
        with pytest.raises(Malformed, match="no account that can be linked"):
            chat_key(SERVICE, account, STUDIO.machine)
    actor = chat_actor(SERVICE, EVA, "studio")
    assert is_chat_actor(actor)
    assert actor.startswith("chat-matrix-")
    assert actor.endswith("@studio")
    assert "eva" not in actor
    assert actor != chat_actor("telegram", EVA, "studio")
    for other in ("alice", "claude@studio", "op:alice", f"x{actor}", "chat-matrix-0@studio"):
        assert not is_chat_actor(other), other
    for body in (
        {"account": "a b"}, {"account": ""}, {"service": "Matrix"}, {"workspace": "a b"},
        {"days": 0}, {"days": 10**6}, {"code": "0"}, {"more": 1},
    ):  # fmt: skip
        raw = {**msgspec.to_builtins(linked("s")), **body}
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(raw, ChatLinked)
    assert msgspec.convert({**msgspec.to_builtins(linked("s")), "workspace": ""}, ChatLinked)


@proves("chat.linked-by-code")
def test_a_code_is_read_as_people_type_it():
    code = code_of(bytes(range(30, 30 + CODE_CHARS)))
    assert code == "YZ234567"
    for text in (code, code.lower(), f" {code[:4]}-{code[4:]}\n", f"{code[:2]}--{code[2:]}"):
        assert code_form(text) == code, text
    for text in ("", code[1:], f"{code}2", "YZ23456O", "YZ23456\u0661", f"{code[:4]} {code[4:]}"):
        assert code_form(text) == "", text
    assert len(code_hash(code)) == 64
    assert code_hash(code) != code_hash(code[::-1])


@proves("chat.incidents")
def test_who_looked_at_an_incident_is_a_row_by_the_word_of_the_machine_that_heard_it():
    world = small_fleet()
    told = Told("disk", "/".join((BUILD.machine, "1" * 32, "fleet")), NOW)
    body = ChatAcknowledged(EVA, told, SERVICE, WORKSPACE)
    world.write(STUDIO, CHAT_ACKNOWLEDGE, body)
    (row,) = world.select(CHAT_ACKNOWLEDGED)
    assert row[1:] == (name_of(told), KEY, WORKSPACE, told.stream, "disk", NOW)
