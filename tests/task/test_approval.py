"""A person's yes lets an agent do one thing, once: histories at random, and every refusal by name."""

import hashlib
import json
import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from tests.promise import proves
from tests.task.orders import FLEET_ID, NOW_MS, OPERATOR, signed
from tests.task.world import BUILD, STUDIO, Stream

from muster.errors import Conflict, Denied, MusterError
from muster.fleet.grant import ANYTHING, Given, Grant, decide
from muster.limits import APPROVALS_ENDED_MAX, APPROVALS_OPEN_MAX
from muster.task import approval
from muster.task.approval import VERB, Chains, args_of, grant_object, hash_of, id_of
from muster.task.approval_fold import APPROVAL, ApprovalFold
from muster.task.approval_kinds import (
    ApprovalAnswer,
    ApprovalAsk,
    ApprovalExpire,
    ApprovalUse,
    ApprovalWithdraw,
)
from muster.task.instruction import Now

HISTORIES = 10_000
TASK, EPOCH = "ab" * 16, (1, 1)
LIFE_MS = 600_000
CLASSES = ("command", "edit-outside", "network-host")
# Alice is an operator, Bob was granted all approvals, Carol one class; Mallory nothing.
GRANTS = (
    Given("g0", "", Grant(ANYTHING, "alice", 1 << 50, ANYTHING)),
    Given("g1", "alice", Grant(ANYTHING, "bob", 1 << 50, VERB)),
    Given("g2", "alice", Grant(grant_object("command"), "carol", 1 << 50, VERB)),
)
ACCOUNT = f"chat.matrix.@alice:example.org@{BUILD}"
PERSONS = ("alice", "bob", "carol", "mallory")


def may(person: str, id: str, sort: str) -> bool:
    """As the machine that takes the order asks: of the approval, then of its class."""
    for object in (id, grant_object(sort)):
        try:
            return bool(decide(GRANTS, person, VERB, object, 1))
        except Denied:
            continue
    return False


def action_hash(action: str, machine: str = BUILD) -> str:
    number = hashlib.sha256(action.encode()).hexdigest()
    return hash_of(FLEET_ID, machine, TASK, EPOCH, number)


class World:
    """One worker with its agent, people who say all sorts of things, and what truly happened."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"approvals/{seed}")
        self.chains = Chains()
        self.now = Now(1_000_000, NOW_MS)
        self.number = 0
        # What the agent would do now, by approval; and what a person was shown.
        self.would: dict[str, str] = {}
        self.shown: dict[str, tuple[str, str, Now]] = {}
        self.words: list[tuple[str, str, str, str]] = []
        # Whose word counted first, in this life of the process.
        self.counted: dict[str, str] = {}
        self.used: set[str] = set()
        self.lives = 0
        self.born: dict[str, int] = {}
        self.reached: Counter[str] = Counter()

    def ask(self) -> None:
        if not self.chains.has_room(TASK, EPOCH):
            return
        self.number += 1
        # Of a few kinds, so that equal actions come again: a nonce tells them apart.
        action = f"{self.rng.choice(('rm a', 'rm b', 'push'))}/{self.number}"
        hash = action_hash(action)
        sort = self.rng.choice(CLASSES)
        until = Now(self.now.boot_ms + LIFE_MS, self.now.wall_ms + LIFE_MS)
        body = ApprovalAsk(id_of(hash), TASK, EPOCH, hash, until.wall_ms, sort)
        self.chains.asked(body, until.boot_ms)
        self.would[body.id], self.born[body.id] = action, self.lives
        self.shown[body.id] = (action, sort, until)

    def swap(self) -> None:
        if self.would:
            id = self.rng.choice(list(self.would))
            self.would[id] = self.rng.choice((f"{self.would[id]}!", self.shown[id][0]))

    def sign(self) -> None:
        """Somebody says something about something; often what was shown, sometimes another."""
        if not self.shown:
            return
        id = self.rng.choice(list(self.shown))
        about = self.rng.choice((id, id, id, self.rng.choice(list(self.shown))))
        hash = action_hash(self.shown[about][0])
        word = self.rng.choice(("allow", "allow", "allow", "deny"))
        self.words.append((self.rng.choice(PERSONS), id, hash, word))

    def say(self) -> None:
        """A word arrives: any one, also one that arrived before."""
        if not self.words:
            return
        person, id, hash, word = self.rng.choice(self.words[-4:])
        action, sort, until = self.shown[id]
        if not may(person, id, sort):
            self.reached["wrong person"] += 1
            return
        try:
            body = self.chains.answer(id, hash, word, "", self.now)
        except MusterError as error:
            self.reached[type(error).__name__] += 1
            return
        self.chains.took(body, person)
        assert id not in self.counted, "one word counts"
        assert hash == action_hash(action)
        assert self.now.wall_ms <= until.wall_ms
        self.counted[id] = word

    def use(self) -> None:
        """The driver looks at the action, and at what becomes of it."""
        if not self.would:
            return
        id = self.rng.choice(list(self.would))
        try:
            body = self.chains.use(id, action_hash(self.would[id]), self.now)
        except Conflict:
            self.reached["no use"] += 1
            return
        self.chains.took(body)
        self.reached[type(body).__name__] += 1
        if isinstance(body, ApprovalUse):
            action, _, until = self.shown[id]
            wrong = (
                self.would[id] != action
                or id in self.used
                or self.counted.get(id) != "allow"
                or self.born[id] != self.lives
                or self.now.wall_ms > until.wall_ms
                or self.now.boot_ms > until.boot_ms
            )
            self.reached["wrong"] += wrong
            self.used.add(id)

    def wait(self) -> None:
        boot_ms = self.rng.choice((1_000, LIFE_MS // 3, LIFE_MS))
        # A person's clock is set, in either direction.
        wall_ms = self.rng.choice((boot_ms, boot_ms, boot_ms - LIFE_MS // 2, boot_ms * 2))
        self.now = Now(self.now.boot_ms + boot_ms, self.now.wall_ms + wall_ms)
        if self.rng.random() < 0.5:
            for each in self.chains.late(self.now):
                self.chains.took(each)
                self.reached["expired"] += 1

    def restart(self) -> None:
        if self.rng.random() < 0.3:
            self.chains, self.lives = Chains(), self.lives + 1
            self.reached["restart"] += 1

    def end(self) -> None:
        if self.rng.random() < 0.2:
            for each in self.chains.of_attempt(TASK):
                self.chains.took(ApprovalWithdraw(each.asked.id, "the attempt is over"))


STEPS = ("ask", "ask", "sign", "sign", "say", "say", "say", "use", "use", "swap", "wait", "restart",
         "end")  # fmt: skip


def play(histories: int) -> Counter[str]:
    reached: Counter[str] = Counter()
    for seed in range(histories):
        world = World(seed)
        world.ask()
        for _ in range(20):
            getattr(world, world.rng.choice(STEPS))()
        reached += world.reached
    return reached


@proves("approval.one-action", "approval.first-word", "approval.time", "approval.by-class")
def test_in_ten_thousand_histories_no_yes_is_used_wrongly():
    reached = play(HISTORIES)
    assert reached["wrong"] == 0
    # All of it came up: a history that never gets that far proves nothing.
    for what in ("ApprovalUse", "ApprovalWithdraw", "ApprovalExpire", "wrong person", "Denied",
                 "Conflict", "NotFound", "expired", "restart", "no use"):  # fmt: skip
        assert reached[what] >= 20, (what, reached)


@proves("approval.one-action")
def test_without_the_binding_the_histories_find_wrong_uses(monkeypatch):
    monkeypatch.setattr(approval, "binds", lambda *_: True)
    with pytest.raises(AssertionError):
        assert play(200)["wrong"] == 0


@proves("approval.one-action", "approval.first-word", "approval.time")
def test_who_comes_late_or_means_another_action_is_told_so():
    chains, now = Chains(), Now(0, NOW_MS)
    hash, other = action_hash("rm a"), action_hash("rm b")
    id = id_of(hash)
    assert hash != action_hash("rm a", STUDIO), "another machine's is another action"
    assert hash != hash_of(FLEET_ID, BUILD, TASK, (1, 2), "a"), "and another attempt's"
    with pytest.raises(MusterError, match="no agent waits for approval"):
        chains.answer(id, hash, "allow", "", now)
    chains.asked(ApprovalAsk(id, TASK, EPOCH, hash, NOW_MS + LIFE_MS, "command"), LIFE_MS)
    with pytest.raises(Denied, match="another action"):
        chains.answer(id, other, "allow", "", now)
    with pytest.raises(Conflict, match="is open: it lets nobody"):
        chains.use(id, hash, now)
    for late in (Now(LIFE_MS + 1, NOW_MS), Now(0, NOW_MS + LIFE_MS + 1)):
        with pytest.raises(Conflict, match="nobody answered it in time"):
            chains.answer(id, hash, "allow", "", late)
    chains.took(chains.answer(id, hash, "allow", "", now), "op:alice")
    with pytest.raises(Conflict, match=r"op:alice has answered that already.*is allowed"):
        chains.answer(id, hash, "deny", "", now)
    assert isinstance(chains.use(id, hash, Now(LIFE_MS + 1, NOW_MS)), ApprovalExpire)
    changed = chains.use(id, other, now)
    assert isinstance(changed, ApprovalWithdraw)
    assert "has changed" in changed.reason
    chains.took(chains.use(id, hash, now))
    with pytest.raises(Conflict, match="is used: it lets nobody"):
        chains.use(id, hash, now)
    with pytest.raises(Conflict, match="does not go on like that"):
        chains.took(ApprovalUse(id, hash))


@proves("approval.time")
def test_an_attempt_asks_a_few_things_at_once_and_what_is_over_is_forgotten_one_day():
    chains, ids = Chains(), []
    for number in range(APPROVALS_ENDED_MAX + APPROVALS_OPEN_MAX):
        hash = action_hash(str(number))
        chains.asked(ApprovalAsk(id_of(hash), TASK, EPOCH, hash, NOW_MS, "command"), 0)
        ids.append(id_of(hash))
    assert not chains.has_room(TASK, EPOCH)
    assert chains.has_room(TASK, (1, 2))
    for end in chains.late(Now(1, NOW_MS)):
        chains.took(end)
    assert chains.waiting() == []
    assert chains.get(ids[0]) is None
    last = chains.get(ids[-1])
    assert last is not None
    assert last.state == "expired"


HASH = action_hash("rm a")
ID = id_of(HASH)
ASK = ApprovalAsk(ID, TASK, EPOCH, HASH, NOW_MS + LIFE_MS, "command")


def word(answer: str = "allow", hash: str = HASH, **changes: Any) -> ApprovalAnswer:
    """An answer as its machine writes it, over a genuine statement."""
    known = {"verb": VERB, "object": ID, "target": BUILD, "args": args_of(ID, hash, answer)}
    statement = signed(**{**known, **changes})
    return ApprovalAnswer(ID, hash, answer, statement)  # type: ignore[arg-type]


USE = ApprovalUse(ID, HASH)
# What is written, how the approval stands then, and what was skipped.
CHAINS: tuple[tuple[tuple[Any, ...], str, list[str]], ...] = (
    ((ASK,), "open", []),
    ((ASK, word()), "allowed", []),
    ((ASK, word("deny")), "denied", []),
    ((ASK, word(), USE), "used", []),
    ((ASK, word(), USE, USE), "used", ["approval-over"]),
    ((ASK, USE), "open", ["approval-over"]),
    ((ASK, word("deny"), USE), "denied", ["approval-over"]),
    ((ASK, word("deny"), word()), "denied", ["approval-over"]),
    ((ASK, ApprovalExpire(ID), word()), "expired", ["approval-over"]),
    ((ASK, word(), ApprovalExpire(ID), USE), "expired", ["approval-over"]),
    ((ASK, word(), ApprovalWithdraw(ID, "so"), USE), "withdrawn", ["approval-over"]),
    ((ASK, word(), ApprovalUse(ID, action_hash("rm b"))), "allowed", ["approval-other-action"]),
    ((ASK, word(hash=action_hash("rm b"))), "open", ["approval-other-action"]),
    ((ASK, word(args=args_of(ID, HASH, "deny"))), "open", ["approval-other-answer"]),
    ((ASK, word(args=args_of(ID, action_hash("b"), "allow"))), "open", ["approval-other-answer"]),
    ((ASK, word(verb="acknowledge")), "open", ["approval-other-answer"]),
    ((ASK, word(object="0" * 32)), "open", ["approval-other-answer"]),
    ((ASK, word(target=STUDIO)), "open", ["other-target"]),
    ((ASK, ApprovalAnswer(ID, HASH, "allow", "no statement")), "open", ["bad-statement"]),
    ((ASK, ApprovalAnswer(ID, HASH, "allow", "", ACCOUNT), USE), "used", []),
    ((ASK, ApprovalAnswer(ID, HASH, "deny", "", ACCOUNT), word()), "denied", ["approval-over"]),
    ((ASK, ApprovalAnswer(ID, action_hash("rm b"), "allow", "", ACCOUNT)), "open",
     ["approval-other-action"]),
    ((ASK, msgspec.structs.replace(word(), account=ACCOUNT)), "open", ["approval-other-answer"]),
    ((ASK, ApprovalAnswer(ID, HASH, "allow", "", "alice")), "open", ["bad-body"]),
    ((ASK, ApprovalAnswer(ID, HASH, "allow", "")), "open", ["bad-statement"]),
    ((ASK, ASK, word()), "allowed", ["approval-known"]),
    ((word(), ASK), "open", ["approval-unknown"]),
    ((ApprovalAsk("0" * 32, TASK, EPOCH, HASH, NOW_MS, "command"), ASK), "open",
     ["approval-other-id"]),
)  # fmt: skip


@proves("approval.chain")
@pytest.mark.parametrize(("written", "state", "skipped"), CHAINS)
def test_everybody_reads_a_chain_the_same_and_skips_what_does_not_belong(written, state, skipped):
    stream = Stream(BUILD, folds=(ApprovalFold(FLEET_ID),))
    for body in written:
        stream.append(body)
    row = stream.rows.get(APPROVAL, ID)
    assert row is not None
    assert (row.state, stream.skipped) == (state, skipped)
    assert (row.sort, row.hash, row.task) == ("command", HASH, TASK)
    assert bool(row.operator) == (state in ("allowed", "denied", "used") or len(written) > 3)
    if row.operator:
        accounts = [body.account for body in written if isinstance(body, ApprovalAnswer)]
        assert row.operator == (accounts[0] or OPERATOR.public.hex())


@proves("approval.chain")
def test_a_signature_of_nobody_answers_nothing():
    stream = Stream(BUILD, folds=(ApprovalFold(FLEET_ID),))
    stream.append(ASK)
    good = word().statement
    at = good.rstrip().rindex("\n") + 5
    bad = f"{good[:at]}{'0' if good[at] != '0' else '1'}{good[at + 1 :]}"
    stream.append(ApprovalAnswer(ID, HASH, "allow", bad))
    assert stream.skipped == ["bad-statement"]


@proves("approval.chain")
def test_what_the_fleet_hears_says_nothing_of_what_is_asked():
    raw = Stream(BUILD, folds=()).append(ASK).body
    assert raw is not None
    fields = {"class", "epoch", "hash", "id", "task", "until_ms"}
    assert set(json.loads(raw)) == fields
