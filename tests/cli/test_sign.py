"""Orders are signed in the command, for one machine, over exactly what the verb gets."""

import re
from pathlib import Path

import pytest

from muster import errors
from muster.cli import context, parse, sign
from muster.errors import Denied, Malformed, NotFound, Refused
from muster.fleet.grant import gives, takes
from muster.fleet.machine import Authority, Operator
from muster.fleet.statement import check_order, open_statement
from muster.task.evidence import run_args
from muster.task.kinds import RunOpen
from muster.verbs.table import VERBS
from tests.promise import proves

DOCS = Path(__file__).parents[2] / "docs"
FLEET = Authority(b"a" * 32).fleet
HUB = "b" * 64
NOW = 1_790_000_000_000
TO = sign.Target(HUB, "hub", FLEET, NOW)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path))
    (tmp_path / "operator.seed").write_bytes(b"o" * 32)
    (tmp_path / "operator.seed").chmod(0o600)
    return tmp_path


@proves("cli.orders-are-signed")
def test_an_order_names_its_machine_its_arguments_and_five_minutes(home):
    raw = sign.sign("invite", {"name": "laptop"}, TO, "laptop")
    statement = open_statement(raw.encode(), FLEET)
    assert statement.operator == Operator(b"o" * 32).key
    assert statement.until_ms - statement.issued_ms == 5 * 60_000
    order_is = {"verb": "invite", "object": "laptop", "machine": HUB, "now_ms": NOW}
    check_order(statement, args={"name": "laptop"}, **order_is)
    for wrong in ({"args": {"name": "other"}}, {"args": {"name": "laptop"}, "machine": "c" * 64}):
        with pytest.raises(Refused):
            check_order(statement, **{**order_is, **wrong})


@proves("cli.orders-are-signed")
def test_two_orders_of_the_same_never_share_a_nonce(home):
    first, second = (
        open_statement(sign.sign("retry", {"task": "t"}, TO, "t").encode(), FLEET) for _ in range(2)
    )
    assert first.nonce != second.nonce


@proves("cli.orders-need-the-key")
def test_without_the_operators_key_the_command_says_where_it_is_and_signs_nothing(home):
    (home / "operator.seed").unlink()
    with pytest.raises(Denied, match="muster init"):
        sign.sign("invite", {"name": "laptop"}, TO, "laptop")


@proves("cli.run-args")
def test_a_run_is_signed_over_what_the_worker_will_compute_again():
    args = {"spec": "muster: 1\n", "base": "abc", "value": ["a=1", "b=x=y"]}
    body = RunOpen("r", "n", "muster: 1\n", "", repo="main", base="abc",
                   values={"a": "1", "b": "x=y"})  # fmt: skip
    assert sign.run_args(args, "main") == run_args(body)
    assert sign.run_args({**args, "repo": "other"}, "main")["repo"] == "other"
    with pytest.raises(Malformed, match="NAME=TEXT"):
        sign.run_args({"spec": "", "value": ["oops"]}, "")


@proves("cli.order-target")
def test_whoever_orders_asks_once_who_is_to_act():
    asked = []

    def ask(verb, args):
        asked.append((verb, args))
        return {"machine": HUB, "name": "hub", "fleet": FLEET, "now_ms": NOW, "object": ""}

    def asked_of(verb, args, on=""):
        asked.clear()
        assert sign.target(ask, VERBS[verb], args, on) == TO
        ((name, sent),) = asked
        assert (name, sent.pop("verb")) == ("target", verb)
        return sent

    assert asked_of("invite", {"name": "x"}) == {"object": "x"}
    assert asked_of("invite", {"name": "x"}, on="build") == {"object": "x", "on": "build"}
    assert asked_of("vouch", {}) == {}
    assert asked_of("cancel", {"what": "aa"}) == {"object": "aa"}
    assert asked_of("retry", {"task": "bb2"}) == {"object": "bb2"}


@proves("cli.order-target", "task.lost-owner-ends")
def test_to_cancel_what_its_owner_cannot_be_asked_about_is_an_order_for_everybody(home):
    def ask(_verb, _args):
        return {"machine": "", "name": "hub", "fleet": FLEET, "now_ms": NOW, "object": "dd44"}

    args = {"what": "dd"}
    to = sign.target(ask, VERBS["cancel"], args, "")
    assert (to.machine, args["what"]) == ("", "dd44")
    statement = open_statement(sign.sign("cancel", args, to, "dd44").encode(), FLEET)
    assert (statement.target, statement.object) == ("fleet", "dd44")


KEY = "cd" * 32


def _checked(held):
    """The daemon, that knows whom a grant means and which of them stand."""
    return lambda verb, args: {"grantee": KEY, "sort": "key", "held": held}


@proves("cli.grant")
def test_a_grant_carries_its_own_statement_that_gives_exactly_it(home):
    args = {"to": KEY, "verb": "send", "object": "*", "days": 1}
    (options,) = sign.grant_options(_checked([]), args, TO)
    from muster.fleet.grant import Grant

    statement = open_statement(options["statement"].encode(), FLEET)
    assert gives(statement, Grant(**options["grant"]))
    assert options["grant"]["until_ms"] == NOW + 86_400_000


@proves("cli.grant")
def test_taking_back_names_each_grant_that_is_meant_and_no_other(home):
    args = {"to": KEY, "verb": "send", "object": "*", "days": 1, "take": True}
    found = sign.grant_options(_checked(["1" * 64, "3" * 64]), args, TO)
    assert [options["id"] for options in found] == ["1" * 64, "3" * 64]
    for options in found:
        assert takes(open_statement(options["statement"].encode(), FLEET), options["id"])
    with pytest.raises(NotFound):
        sign.grant_options(_checked([]), args, TO)


@proves("cli.grant")
@pytest.mark.parametrize("days", [0, -1, sign.GRANT_DAYS_MAX + 1])
def test_a_grant_that_ends_before_it_begins_or_never_is_not_signed(home, days):
    with pytest.raises(Malformed, match="days"):
        sign.grant_options(_checked([]), {"to": KEY, "verb": "send", "days": days}, TO)


@proves("cli.table")
@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_has_its_handler_and_names_only_what_it_takes(name):
    verb = VERBS[name]
    assert callable(verb.load())
    names = {arg.name for arg in verb.args}
    assert verb.object in names | {"", "statement"} or verb.hidden
    assert verb.summary[-1:] not in {"", "."}
    assert len(names) == len(verb.args)
    if verb.target.startswith("owner"):
        assert verb.object in names


@proves("cli.table")
def test_whatever_changes_something_for_others_needs_an_order():
    free = {v.name for v in VERBS.values() if v.auth == "nothing"}
    assert free == {"enrol"}
    ordered = {v.name for v in VERBS.values() if v.auth in {"order", "agent"}}
    assert ordered == {
        "invite", "revoke", "grant", "run", "cancel", "retry", "decide", "repo", "approve", "send", "acknowledge", "silence",
        "reply", "ack", "thread", "push", "operator.add", "device.add", "device.revoke", "role", "doubt.end",
        "repo.sync", "repo.prune", "repo.remove", "machine.rename", "machine.bind", "machine.labels",
        "machine.drain", "machine.left", "remember", "refute", "forget", "memory.import",
        "context.map", "context.remove", "context.ignore", "context.resolve", "proposal.end",
        "wake", "exec", "tty", "file.read", "file.write", "takeover", "standin",
        "peer.add", "peer.remove", "peer.ask", "peer.put",
        "schedule.set", "schedule.pause", "schedule.resume", "schedule.remove",
        "chat.link", "chat.unlink",
    }  # fmt: skip


@proves("memory.erased-by-whom")
def test_an_order_to_forget_says_what_stays_where_this_machine_knows_it():
    full = "ab" * 32

    def ask(verb, asked):
        assert (verb, asked) == ("forget.check", {"version": "abab12"})
        if answers[0] is NotFound:
            raise NotFound("nothing is known as abab12")
        return answers[0]

    answers = []

    for answer, wanted in (
        (
            {"version": full, "key": "k", "restates": "0" * 64},
            {"version": full, "restates": "0" * 64},
        ),
        ({"version": full, "key": "k"}, {"version": full}),
        (None, {"version": "abab12"}),
        (NotFound, {"version": "abab12"}),
    ):
        args, answers[:] = {"version": "abab12", "reason": "no"}, [answer]
        assert getattr(sign, VERBS["forget"].signs)(ask, args, TO) == [{}]
        assert args == {**wanted, "reason": "no"}


@proves("memory.private-is-veiled")
def test_an_order_to_remember_what_is_private_names_it_by_a_hash_that_nobody_can_guess():
    verb, seen = VERBS["remember"], set()
    for scope in ("private", "private", "fleet", ""):
        args = {"key": "k", "text": ["x"], "scope": scope}
        assert getattr(sign, verb.signs)(None, args, TO) == [{}]
        assert ("salt" in args) == (scope == "private")
        seen.add(sign.object_of(verb, args))
    assert "k" in seen
    assert len(seen) == 3, "two veiled ones, each by its own salt"


@proves("cli.exit-codes-are-one-table")
def test_what_cannot_be_a_name_is_not_found_unless_it_is_to_become_one():
    for verb, args in (("cancel", {"what": "a b"}), ("send", {"to": "é"})):
        with pytest.raises(NotFound):
            sign.object_of(VERBS[verb], args)
    with pytest.raises(Malformed):
        sign.object_of(VERBS["invite"], {"name": "my laptop"})


@proves("cli.exit-codes-are-one-table")
def test_the_exit_codes_in_the_documents_are_those_of_the_errors():
    table = {}
    for line in (DOCS / "spec" / "calls.md").read_text().splitlines():
        found = re.fullmatch(r"\| (\d+) \| ([^|]*) \|.*\|", line)
        if found:
            table |= dict.fromkeys(re.findall(r"`(\w+)`", found[2]), int(found[1]))
    raised = {
        name: each.exit_code
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, errors.MusterError)
    }
    del raised["MusterError"]
    assert table == {**raised, "Usage": parse.USAGE_EXIT}
    readme = (DOCS.parent / "README.md").read_text().partition("Exit codes:")[2][:400]
    assert {int(n) for n in re.findall(r"\b(\d) [a-z]", readme)} >= set(table.values()) | {0, 1}


@proves("cli.refusals-show-the-way-out")
@pytest.mark.parametrize(
    ("verb", "device", "may"),
    [("send", True, False), ("repo", True, True), ("revoke", True, True), ("role", False, False)],
)
def test_whoever_has_no_key_is_told_of_a_device_only_where_a_device_may(
    tmp_path, monkeypatch, verb, device, may
):
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path))
    with pytest.raises(Denied) as refused:
        sign.signer(verb)
    assert ("device add" in str(refused.value)) is device
    assert (f"--may {verb}" in str(refused.value)) is may


@proves("cli.asks-once")
@pytest.mark.parametrize(
    "words", [["send", "hub", "hi"], ["cancel", "aa"], ["retry", "aa"], ["decide", "aa", "yes"]]
)
def test_an_order_is_two_calls_whom_it_is_for_and_itself(home, monkeypatch, words, capsys):
    asked = []

    def stream(_path, verb, _args=None, **_fields):
        asked.append(verb)
        target = {"machine": HUB, "name": "hub", "fleet": FLEET, "now_ms": NOW, "object": ""}
        yield target if verb == "target" else {"message": "ab", "state": "stored", "fresh": True,
                                               "task": "aa", "cancelled": True, "answer": "approve"}  # fmt: skip

    monkeypatch.setattr("muster.cli.call.stream", stream)
    assert context.CommandContext(parse.parse(words)).run() == 0
    assert asked == ["target", words[0]]
