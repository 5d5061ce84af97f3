"""Every verb of the table, asked by everybody who must not: what is answered, and what changes.

The verbs are taken from the table, so a verb that is new tomorrow is attacked tomorrow.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from muster.channel.frame import Type
from muster.fleet.capability import make_capability
from muster.fleet.grant import Grant, sign_give
from muster.fleet.machine import Operator
from muster.limits import CALL_BYTES_MAX
from muster.node import event as ev
from muster.node.call import arguments
from muster.node.call.authorize import Authorizer
from muster.node.tasks.runs import RunService
from muster.node.verb import Verb
from muster.verbs.table import VERBS
from tests.arguments import good as least
from tests.fleet.world import (
    ALICE,
    BUILD,
    FLEET_ID,
    LAPTOP,
    MALLORY,
    NOW,
    OTHER_AUTHORITY,
    STUDIO,
)
from tests.promise import proves
from tests.security.target import (
    EVERY_MACHINE,
    LOCAL,
    MEMBER,
    SPEC,
    STRANGER,
    Target,
    check_sentence,
)

CALLABLE = [v for v in VERBS.values() if v.runs != "client"]
CLIENT = [v for v in VERBS.values() if v.runs == "client"]
NAMES = [
    "../x",
    "a\0b",
    "a\nb",
    "\u202eevil",
    "a" * 100_000,
    "",
    " ",
    "-rf",
    "%s%n",
    "\x1b[2J",
    "é",
]
WRONG: list[Any] = [
    None,
    0,
    -1,
    2**53 - 1,
    2**70,
    True,
    "",
    "x",
    [],
    ["x"],
    [None],
    [[[]]],
    {},
    {"a": 1},
]
# Where the least that is understood does not mean anything here.
MEANT: dict[str, dict[str, Any]] = {
    "file.read": {"place": "x:/srv", "path": "a"},
    "file.write": {"place": "x:/srv", "path": "a", "size": 1, "sha256": "0" * 64},
    "invite": {"name": "new"},
    "revoke": {"name": "laptop"},
    "grant": {"to": "build", "verb": "send"},
    "run": {"spec": SPEC, "repo": "", "base": "", "values": {}},
    "cancel": {"what": "abcd"},
    "send": {"to": "build", "text": ["hello"]},
    "repo": {"action": "list"},
    "session.wrote": {"files": [["a" * 32, "b" * 32]]},
    "session.met": {"files": [["a" * 32, "b" * 32, [["claude", "s-1", 1]]]]},
}


def good(verb: Verb) -> dict[str, Any]:
    """Arguments that the verb takes."""
    return MEANT.get(verb.name) or least(verb)


@proves("node.arguments-checked")
def test_what_is_called_good_here_is_what_each_verb_takes() -> None:
    """Else an attack is refused for its arguments, and the safeguard behind them is not tried."""
    for verb in CALLABLE:
        arguments.read(verb, verb.load(), good(verb), {})


def ids(verbs: list[Verb]) -> list[str]:
    return [v.name for v in verbs]


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.store.close()


def refused(target: Target, link: int, verb: str, args: Any = None, **more: Any) -> str:
    """The sentence that refuses this call, which changed nothing and began nothing."""
    before = target.state()
    target.deeds()
    answers = target.call(link, verb, args, **more)
    assert len(answers) == 1, answers
    assert target.state() == before
    assert not target.deeds()
    return check_sentence(answers[0])


@pytest.mark.parametrize("verb", CALLABLE, ids=ids(CALLABLE))
@proves("node.order-needs-statement")
def test_no_option_beside_what_was_signed_says_something_else(verb: Verb) -> None:
    """Whoever passes a call on could add one."""
    for name in (arg.name for arg in verb.args if arg.unsigned and arg.kind == "flag"):
        for signed in (False, True):
            args, options = {**good(verb), name: signed}, {name: not signed}
            assert getattr(arguments.read(verb, verb.load(), args, options), name) is signed


# --- who may ask --------------------------------------------------------------------------


@pytest.mark.parametrize("verb", CALLABLE, ids=ids(CALLABLE))
@proves("node.stranger-enrols-only")
def test_a_stranger_is_answered_nothing_but_enrolment(target: Target, verb: Verb) -> None:
    for args in ({}, good(verb)):
        text = refused(target, STRANGER, verb.name, args)
        if verb.auth != "nothing":
            assert "machines of the fleet" in text


@pytest.mark.parametrize("verb", CALLABLE, ids=ids(CALLABLE))
@proves("node.stranger-enrols-only")
def test_a_stranger_cannot_borrow_the_hub_to_reach_another_machine(
    target: Target, verb: Verb
) -> None:
    for on in ("build", BUILD.machine, "laptop", "nobody"):
        text = refused(target, STRANGER, verb.name, {}, on=on)
        assert "laptop" not in text, "a stranger learns no names"


@pytest.mark.parametrize("verb", CALLABLE, ids=ids(CALLABLE))
@proves("node.order-needs-statement")
def test_a_member_without_a_statement_gets_what_its_own_link_proves_and_no_more(
    target: Target, verb: Verb
) -> None:
    if verb.auth in ("peer", "nothing"):
        return
    text = refused(target, MEMBER, verb.name, good(verb))
    if verb.auth == "foreign":
        assert "machines of other fleets alone" in text
        return
    assert "operator's signature" in text


@pytest.mark.parametrize("verb", CALLABLE, ids=ids(CALLABLE))
@proves("node.order-needs-statement")
def test_a_local_program_without_a_statement_orders_nothing(target: Target, verb: Verb) -> None:
    if verb.auth not in ("order", "agent"):
        return
    assert "operator's signature" in refused(target, LOCAL, verb.name, good(verb))


@pytest.mark.parametrize("verb", CLIENT, ids=ids(CLIENT))
@proves("node.order-needs-statement")
def test_what_runs_inside_the_command_cannot_be_called(target: Target, verb: Verb) -> None:
    for link in (MEMBER, LOCAL):
        assert "there is no verb" in refused(target, link, verb.name, {})


@proves("node.order-needs-statement")
def test_no_attribute_or_unknown_name_is_a_verb(target: Target) -> None:
    for name in (
        "load",
        "__init__",
        "_authorise",
        "",
        "a" * 10_000,
        "Run",
        "run ",
        "\0",
        "\x1b[2J",
    ):
        assert "there is no verb" in refused(target, LOCAL, name, {})


@pytest.mark.parametrize("verb", [v for v in CALLABLE if v.auth == "peer"], ids=lambda v: v.name)
@proves("node.forwarding-adds-nothing")
def test_a_call_that_was_passed_on_is_not_the_call_of_whoever_passed_it_on(
    target: Target, verb: Verb
) -> None:
    text = refused(target, MEMBER, verb.name, good(verb), hops=1)
    assert "passed on" in text


@proves("node.forwarding-adds-nothing")
def test_hops_cannot_be_negative_or_huge(target: Target) -> None:
    for hops in (-1, -(2**53) + 1, 1000):
        refused(target, MEMBER, "status", {}, on="laptop", hops=hops)


@proves("node.revoked-asks-nothing")
def test_a_revoked_machine_is_answered_nothing_on_a_link_that_is_still_open(
    target: Target,
) -> None:
    args = {"name": "build"}
    statement = target.order("revoke", "build", args)
    assert target.call(LOCAL, "revoke", args, statement=statement)[0]["ok"]
    for verb in CALLABLE:
        more = {"statement": target.order(verb.name, "*", {})} if verb.auth == "order" else {}
        refused(target, MEMBER, verb.name, {}, **more)
        refused(target, MEMBER, verb.name, {}, on="studio", **more)
        refused(target, MEMBER, verb.name, {}, on="laptop", **more)


# --- statements ---------------------------------------------------------------------------


def bad_statements(target: Target) -> Iterator[tuple[str, dict[str, Any]]]:
    args: dict[str, Any] = {"name": "laptop"}
    good = target.order("revoke", "laptop", args)
    now = target.now.wall_ms
    yield "of nobody", {"statement": target.order("revoke", "laptop", args, by=MALLORY)}
    yield (
        "for another machine",
        {"statement": target.order("revoke", "laptop", args, target=BUILD.machine)},
    )
    yield "for another verb", {"statement": target.order("grant", "laptop", args)}
    yield "for another object", {"statement": target.order("revoke", "build", args)}
    yield "for other args", {"statement": target.order("revoke", "laptop", {"name": "build"})}
    yield (
        "expired",
        {
            "statement": target.order(
                "revoke", "laptop", args, issued_ms=now - 20, until_ms=now - 10
            )
        },
    )
    yield (
        "from the future",
        {
            "statement": target.order(
                "revoke", "laptop", args, issued_ms=now + 10**9, until_ms=now + 10**9 + 1
            )
        },
    )
    yield (
        "of another fleet",
        {"statement": target.order("revoke", "laptop", args, fleet=OTHER_AUTHORITY.fleet)},
    )
    yield "changed", {"statement": good.replace("laptop", "studio")}
    yield "cut", {"statement": good[:-10]}
    yield "empty lines", {"statement": "\n\n\n"}
    yield "not text", {"statement": "\u202e\x00\x1b[2J" * 100}
    yield "huge", {"statement": "x" * 1_000_000}
    yield (
        "of a machine's key",
        {"statement": target.order("revoke", "laptop", args, by=machine_as_operator())},
    )


def machine_as_operator() -> Any:
    class AsOperator:
        statement = BUILD.signer("statement")

    return AsOperator()


@pytest.mark.parametrize("link", [MEMBER, LOCAL])
@proves("node.statement-exact")
def test_a_statement_that_is_not_exactly_this_order_orders_nothing(
    target: Target, link: int
) -> None:
    for _, more in bad_statements(target):
        refused(target, link, "revoke", {"name": "laptop"}, **more)
    assert LAPTOP.machine in target.core.roster.machines


OF_MACHINE = [v for v in CALLABLE if v.of_machine]
BOB = Operator(b"bob".ljust(32, b"-"))


def of_machine(verb: Verb, machine: str, asker: str = BUILD.machine) -> dict[str, Any]:
    """Good arguments of a verb whose object is, or begins with, a machine."""
    rest = str(good(verb)[verb.object]).partition(":")[1:]
    return {**good(verb), verb.object: machine + "".join(rest), "asker": asker}


@pytest.mark.parametrize("verb", OF_MACHINE, ids=ids(OF_MACHINE))
@proves("remote.nobody-between")
def test_an_order_with_a_stream_comes_over_a_link_to_the_machine_that_signed_it_or_not_at_all(
    target: Target, verb: Verb
) -> None:
    """Whoever passes it on has the stream in plain; that it was passed on it need not say."""
    for link, asker in (
        (MEMBER, LAPTOP.machine), (MEMBER, STUDIO.machine), (MEMBER, ""), (MEMBER, "build"),
        (LOCAL, BUILD.machine), (LOCAL, ""),
    ):  # fmt: skip
        args = of_machine(verb, STUDIO.machine, asker)
        signed = target.order(verb.name, str(args[verb.object]), args)
        for more in ({}, {"hops": 1}):
            said = refused(target, link, verb.name, args, statement=signed, **more)
            assert "between those two alone" in said
    for link, asker in ((MEMBER, BUILD.machine), (LOCAL, STUDIO.machine)):
        args = of_machine(verb, STUDIO.machine, asker)
        signed = target.order(verb.name, str(args[verb.object]), args)
        target.deeds()
        assert target.call(link, verb.name, args, statement=signed) == []
        assert isinstance(target.deeds()[0], ev.Perform)


@pytest.mark.parametrize("verb", OF_MACHINE, ids=ids(OF_MACHINE))
@proves("remote.needs-an-order")
def test_an_order_about_one_machine_is_none_for_the_machine_that_it_is_shown_to(
    target: Target, verb: Verb
) -> None:
    """Its target may say otherwise: who may order it of build alone signs a target for studio."""
    for named in (BUILD.machine, "studio", "build", "", "*", STUDIO.machine[:-1], " "):
        args = of_machine(verb, named)
        object = str(args[verb.object]) or "*"
        if not all("!" <= mark <= "~" for mark in object):
            object = "*"
        statement = target.order(verb.name, object, args)
        for link in (LOCAL, MEMBER):
            text = refused(target, link, verb.name, args, statement=statement)
            assert "names another machine" in text
    args = of_machine(verb, STUDIO.machine)
    target.deeds()
    statement = target.order(verb.name, args[verb.object], args)
    assert target.call(MEMBER, verb.name, args, statement=statement) == []
    (begun,) = target.deeds()
    assert isinstance(begun, ev.Perform)
    assert begun.verb == verb.name
    assert len(begun.cites) == 1
    assert "taken already" in refused(target, MEMBER, verb.name, args, statement=statement)


@pytest.mark.parametrize("verb", ["file.read", "file.write"])
@proves("remote.files-stay-below")
def test_no_folder_is_longer_than_what_a_grant_can_name(target: Target, verb: str) -> None:
    """An object is compared by its first 200 characters."""
    args = {**MEANT[verb], "place": f"{STUDIO.machine}:/{'a' * 200}"}
    statement = target.order(verb, args["place"][:200], args)
    assert "`place`" in refused(target, MEMBER, verb, args, statement=statement)


@pytest.mark.parametrize("verb", OF_MACHINE, ids=ids(OF_MACHINE))
@proves("remote.needs-an-order")
def test_a_key_needs_a_grant_of_that_verb_on_that_very_machine(target: Target, verb: Verb) -> None:
    key = BOB.key
    args = of_machine(verb, STUDIO.machine)
    object = str(args[verb.object])

    def ask() -> str:
        return refused(
            target, MEMBER, verb.name, args,
            statement=target.order(verb.name, object, args, by=BOB),
        )  # fmt: skip

    def give(verb_name: str, on: str) -> None:
        grant = {"object": on, "to": key, "until_ms": target.now.wall_ms + 10**6, "verb": verb_name}
        raw = sign_give(
            ALICE.statement, FLEET_ID, msgspec.convert(grant, Grant),
            nonce=target.rng.randbytes(16), issued_ms=target.now.wall_ms,
        )  # fmt: skip
        wanted = {"to": key, "verb": verb_name}
        order = target.order("grant", verb_name, wanted)
        options = {"grant": grant, "statement": raw.decode()}
        assert target.call(LOCAL, "grant", wanted, statement=order, options=options)[0]["ok"]

    named = object.replace(STUDIO.machine, "studio")
    assert f"`muster grant KEY {verb.name} --object {named}`" in ask()
    give(verb.name, object.replace(STUDIO.machine, BUILD.machine))
    give("send", "*")
    give("run", object)
    assert "no grant allows it" in ask()
    give(verb.name, object)
    target.deeds()
    signed = target.order(verb.name, object, args, by=BOB)
    assert target.call(MEMBER, verb.name, args, statement=signed) == []
    assert len(target.deeds()) == 1


@proves("node.statement-once")
def test_a_statement_shown_again_does_nothing(target: Target) -> None:
    args = {"name": "new"}
    statement = target.order("invite", "new", args)
    assert target.call(LOCAL, "invite", args, statement=statement)[0]["ok"]
    for link in (LOCAL, MEMBER):
        assert "taken already" in refused(target, link, "invite", args, statement=statement)


@proves("node.statement-once")
def test_two_copies_of_a_statement_in_one_batch_count_once(target: Target) -> None:
    from muster.log import canon

    args = {"name": "new"}
    raw = canon.encode(
        {"args": args, "statement": target.order("invite", "new", args), "verb": "invite"}
    )
    target.step(
        ev.Arrived(LOCAL, Type.CALL, 1, raw),
        ev.Arrived(MEMBER, Type.CALL, 2, raw),
        ev.Arrived(LOCAL, Type.CALL, 3, raw),
    )
    answers = [target.answers[key][0]["ok"] for key in ((LOCAL, 1), (MEMBER, 2), (LOCAL, 3))]
    assert answers == [True, False, False]


@proves("node.statement-exact")
def test_a_statement_for_the_whole_fleet_counts_here_once(target: Target) -> None:
    args = {"name": "new"}
    statement = target.order("invite", "new", args, target=EVERY_MACHINE)
    assert target.call(MEMBER, "invite", args, statement=statement)[0]["ok"]
    refused(target, LOCAL, "invite", args, statement=statement)


@proves("node.revoked-asks-nothing")
def test_a_revoked_operator_orders_nothing(target: Target) -> None:
    args = {"name": "alice", "last": True}
    last = target.order("invite", "new", {"name": "new"})
    statement = target.order("revoke", "alice", args)
    assert target.call(LOCAL, "revoke", args, statement=statement)[0]["ok"]
    refused(target, LOCAL, "invite", {"name": "new"}, statement=last)


# --- capabilities -------------------------------------------------------------------------


@proves("node.capability-bounds")
def test_a_capability_is_for_its_verbs_its_task_and_its_time(target: Target) -> None:
    args = MEANT["send"]
    until = target.now.wall_ms + 1000
    token, capability = make_capability(
        bytes(32), task="t1", agent="claude", verbs=("send",), until_ms=until
    )
    refused(target, LOCAL, "send", args, capability=token)
    target.core.part(Authorizer).allow_agent(capability)
    assert target.call(LOCAL, "send", args, capability=token)[0]["ok"]
    refused(target, MEMBER, "send", args, capability=token)
    refused(target, STRANGER, "send", args, capability=token)
    refused(target, LOCAL, "thread", {"name": "room"}, capability=token)
    other = token.replace(".t1.", ".t2.")
    refused(target, LOCAL, "send", args, capability=other)
    for verb in CALLABLE:
        if verb.auth == "order":
            refused(target, LOCAL, verb.name, good(verb), capability=token)
    target.core.part(Authorizer).forget_agent("t1")
    refused(target, LOCAL, "send", args, capability=token)
    target.core.part(Authorizer).allow_agent(capability)
    target.step()
    target.now = target.now._replace(wall_ms=until)
    refused(target, LOCAL, "send", args, capability=token)


@proves("node.capability-bounds")
def test_what_is_no_capability_is_refused_and_not_repeated(target: Target) -> None:
    for token in (
        "x",
        "muster-cap1.t1." + "0" * 63,
        "muster-cap1.t1." + "0" * 64,
        "\0",
        "x" * 100_000,
    ):
        text = refused(target, LOCAL, "send", MEANT["send"], capability=token)
        assert token not in text or len(token) == 1


# --- arguments ----------------------------------------------------------------------------


def hostile_args(verb: Verb) -> Iterator[dict[str, Any]]:
    """Wrong types for every argument, hostile text for every argument, missing and unknown ones."""
    fine = good(verb)
    names = dict.fromkeys([*(arg.name for arg in (*verb.args, *verb.data)), *fine])
    yield {}
    for name in names:
        yield {k: v for k, v in fine.items() if k != name}
        for value in WRONG:
            if not (isinstance(value, int) and abs(value) >= 2**53):
                yield {**fine, name: value}
        for text in NAMES:
            yield {**fine, name: text}
            yield {**fine, name: [text]}
    yield {**fine, "__class__": "x", "unknown": 1}


@pytest.mark.parametrize("verb", CALLABLE, ids=ids(CALLABLE))
@proves("node.arguments-checked")
def test_hostile_arguments_get_a_sentence_and_never_end_the_machine(
    target: Target, verb: Verb
) -> None:
    """Whoever may ask asks for nonsense: an answer, or one clear sentence; an order is only spent."""
    for args in hostile_args(verb):
        entries = spent = 0
        link, more = LOCAL, {}
        if verb.auth == "peer":
            link = MEMBER
        elif verb.auth in ("order", "agent"):
            object = str(args.get(verb.object, "*"))[:200] if verb.object else "*"
            try:
                more = {"statement": target.order(verb.name, object, args)}
            except Exception:  # noqa: BLE001 - nobody can sign that
                continue
            spent = 1
        entries = count(target)
        answers = target.call(link, verb.name, args, **more)
        for answer in answers:
            if not answer["ok"]:
                check_sentence(answer)
                assert count(target) - entries <= spent, (args, answer)
    assert target.call(LOCAL, "status", {})[0]["ok"], "it still answers"


def count(target: Target) -> int:
    return sum(len(found) for found in target.state()["entries"].values())


@pytest.mark.parametrize("verb", CALLABLE, ids=ids(CALLABLE))
@proves("node.arguments-checked")
def test_wrong_arguments_are_refused_before_any_order_is_spent(target: Target, verb: Verb) -> None:
    """A list for a name, a number for a text: known from the table alone."""
    for arg in verb.args:
        if arg.unsigned or verb.auth not in ("order", "agent"):
            continue
        args = {**good(verb), arg.name: {"a": [1]}}
        object = str(args.get(verb.object, "*"))[:200] if verb.object else "*"
        object = object.replace(" ", "") or "*"
        before = target.state()
        statement = target.order(verb.name, object, args)
        answer = target.call(LOCAL, verb.name, args, statement=statement)
        assert arg.name in check_sentence(answer[0])
        assert target.state() == before


# --- whole calls --------------------------------------------------------------------------

CALLS: list[bytes] = [
    b"", b"{}", b"[]", b"null", b"0", b'"x"', b"\xff\xfe", b"{" * 100_000, b"[" * 200_000,
    b'{"verb":1}', b'{"args":[],"verb":"status"}', b'{"args":{},"verb":null}',
    b'{"verb":"status","verb":"stop"}', b'{"verb": "status"}', b'{"hops":1e400,"verb":"status"}',
    b'{"hops":99999999999999999999,"verb":"status"}', b'{"on":[],"verb":"status"}',
    b'{"extra":1,"verb":"status"}', b'{"verb":"\\ud800"}', b'{"args":{"x":' + b"[" * 17 + b"]" * 17
    + b'},"verb":"status"}', b"\x00" * 1000, b'{"verb":"' + b"x" * 250_000 + b'"}',
    b'{"on":"' + b"x" * 250_000 + b'","verb":"status"}',
]  # fmt: skip


@pytest.mark.parametrize("link", [STRANGER, MEMBER, LOCAL])
@proves("node.calls-bounded")
def test_what_is_no_call_gets_a_sentence(target: Target, link: int) -> None:
    before = target.state()
    for raw in CALLS:
        # A stranger is heard a few times and then cut, which is tried elsewhere.
        target.core.links[link].calls = 0
        answers = target.raw_call(link, raw)
        assert len(answers) == 1, raw[:80]
        check_sentence(answers[0])
    assert target.state() == before


@proves("node.calls-bounded")
def test_a_call_of_eight_mebibytes_is_refused_unread(target: Target) -> None:
    before = target.state()
    raw = b'{"verb":"' + b"x" * CALL_BYTES_MAX + b'"}'
    assert "limit" in check_sentence(target.raw_call(LOCAL, raw)[0])
    assert target.state() == before


@proves("node.arguments-checked")
def test_a_poisoned_spec_is_refused_and_no_run_begins(target: Target) -> None:
    poisoned = [
        "", "x", "\0", "muster: 1", "muster: 9\nname: x\nphases: {}", "&a [*a]", SPEC + "  two:\n    after: two\n",
        "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n" * 50, "!!python/object/apply:os.system ['id']",
        SPEC.replace("hello", "../../etc"), SPEC.replace("hello", "a" * 5000), "[" * 10_000, "\u202e" * 100,
        SPEC.replace("noop", "\x1b[2J"), SPEC + "#" * 300_000,
    ]  # fmt: skip
    for spec in poisoned:
        args = {"base": "", "repo": "", "spec": spec, "values": {}}
        statement = target.order("run", "hello", args)
        answer = target.call(LOCAL, "run", args, statement=statement)
        check_sentence(answer[0])
        assert not target.core.part(RunService).runs
        checked = target.call(LOCAL, "check", {"spec": spec})[0]
        assert checked["ok"], checked


@proves("node.statement-exact")
def test_a_grant_whose_own_statement_is_about_another_one_writes_nothing(target: Target) -> None:
    grant = {"object": "*", "to": BUILD.machine, "until_ms": NOW + 10**6, "verb": "send"}
    args = {"to": "build", "verb": "send"}
    for taking, own in (({}, "grant"), ({"take": True}, "grant.take")):
        wanted = {**args, **taking}
        options = {
            "grant": grant,
            "id": "0" * 64,
            "statement": target.order(own, "else", {}, target=EVERY_MACHINE),
        }
        before = count(target)
        answers = target.call(
            LOCAL, "grant", wanted, statement=target.order("grant", "send", wanted), options=options
        )
        assert not answers[0]["ok"]
        assert count(target) - before <= 1, "only the order is spent"
