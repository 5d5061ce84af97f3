"""A whole machine besieged by a member that knows every format, while its own user works with it.

One round is one deed of somebody: the member writes an entry, calls a verb, offers, answers for a
lease that it really holds; the user hands in runs with values, `each`, races and questions, sends,
asks everything; the world outside answers fences, globs and attempts as oddly as it may; time jumps;
the machine is killed and started again from its disk.

What must hold after every round: the step ended, after bounded work; no guard had to catch a mistake of ours;
whoever asked was answered, in a sentence; and the machine starts from what it holds.
"""

import random
import time
from collections import Counter, deque
from contextlib import suppress
from typing import Any, Final

import msgspec

from muster.channel.frame import Type
from muster.errors import MusterError
from muster.fleet.facts import Facts
from muster.fleet.statement import sign_statement
from muster.limits import BODY_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX
from muster.log import canon, wire
from muster.log.kind import KINDS
from muster.log.stream import FLEET, JOURNAL, Incarnation, Scope, scope_group, scope_to
from muster.node import event as ev
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.attempt_body import AttemptEvent
from muster.node.tasks.bases import BaseFound, FindBase, Matched, MatchGlob
from muster.node.tasks.branches import BringBack, BroughtBack
from muster.task import kinds as task_kinds
from muster.task.evidence import task_args
from muster.task.fold import RUN, TASK
from muster.task.instruction import (
    Fenced,
    MoveBranch,
    Now,
    Promoted,
    RaiseFence,
    StartAttempt,
    StopAttempt,
)
from muster.verbs.table import VERBS
from tests.fleet.world import ALICE, BUILD, FLEET_ID, LAPTOP, LAPTOP_RECORD, STUDIO, revocation
from tests.fuzz.shapes import Shapes
from tests.node.cores import attempt_ended
from tests.security.peer import Peer
from tests.security.target import LOCAL, MEMBER, STRANGER, Target
from tests.work import calls

# Nobody waits longer than a second for a step, which `make siege` measures; this is less.
STEP_CALLS_MAX: Final = 300_000
# Whatever kind there is, also of those that come later.
BODIES: Final[dict[str, Any]] = {name: each.body for name, each in sorted(KINDS.items())}
SYNC: Final = (
    wire.Offer,
    wire.Want,
    wire.Witnessed,
    wire.Cosigns,
    wire.Probe,
    wire.Root,
    wire.Prove,
    wire.Leaf,
)
SPECS: Final = (
    """\
muster: 1
name: plain
phases:
  one: {agent: noop, do: '{}', check: 'true'}
  two: {after: one, agent: shell, do: 'echo "$MUSTER_ONE_SUMMARY" "$MUSTER_ONE_OUTPUT"', check: 'true'}
""",
    """\
muster: 1
name: values
inputs: {x: 'a', y: ''}
phases:
  one: {agent: shell, do: 'echo "$MUSTER_INPUTS_X"', check: 'true'}
  two: {agent: shell, do: 'x', check: 'true'}
  all: {after: [one, two], agent: noop, do: '${one.summary}${two.output}${inputs.y}', check: 'true'}
""",
    """\
muster: 1
name: swarm
repo: main
phases:
  every: {each: 'src/*', agent: shell, do: 'ls "$MUSTER_EACH_PATH"', check: 'true'}
  end: {after: every, agent: shell, do: 'echo "$MUSTER_EVERY_SUMMARY"', check: 'true'}
""",
    """\
muster: 1
name: race
phases:
  r: {race: 3, agent: shell, do: 'x', check: 'true', retries: 2}
""",
    """\
muster: 1
name: human
phases:
  ask: {by: human, do: 'yes?'}
  then: {after: ask, agent: noop, do: '{}', check: 'true'}
""",
    """\
muster: 1
name: away
phases:
  far: {needs: {label: far}, agent: shell, do: 'x', check: 'true', timeout: 1m}
""",
)


class Found(AssertionError):
    """What a round showed."""


class Siege:
    """See the top of this file. The same seed plays the same siege."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.shapes = Shapes(self.rng)
        self.target = Target(seed=seed % 2**32)
        self.peer = Peer()
        self.counts: Counter[str] = Counter()
        self.slowest: tuple[float, str] = (0.0, "")
        self.pending: deque[ev.Effect] = deque(maxlen=400)
        self.trail: deque[str] = deque(maxlen=12)
        self._number = 500
        self._steps = 0
        learn = self.shapes.learn
        learn("machine", [STUDIO.machine, BUILD.machine, LAPTOP.machine, "0" * 64])
        learn("group", [f"{BUILD.machine[:8]}", "room", str(scope_group(BUILD.machine, "room"))])
        learn("record", [LAPTOP_RECORD.raw.decode()])
        learn("revocation", [revocation(LAPTOP)])
        learn("repo", ["main", "other"])
        learn("agent", ["noop", "shell", f"noop@{BUILD.machine}"])
        learn("phase", ["one", "two", "each", "r", "ask", "far"])
        learn("spec", SPECS)
        learn("name", ["build", "laptop", "studio", "alice", "room", "plain", "swarm"])
        learn("address", ["all", BUILD.machine, f"noop@{STUDIO.machine}", "role:hub"])
        learn("hash", ["0" * 64, ALICE.key])
        own = Facts("linux", "x86_64", agents={"noop": "1", "shell": "1"}, repositories=("main",))
        self.target.step(FactsChanged(msgspec.to_builtins(own)))
        self.facts()
        self.deeds = (
            (8, self.entry), (4, self.sequence), (3, self.member_call), (2, self.sync), (3, self.order),
            (3, self.question), (4, self.world), (2, self.tick), (1, self.link), (1, self.garbage), (1, self.facts),
        )  # fmt: skip

    # --- rounds ---------------------------------------------------------------------------------

    def round(self) -> None:
        """One deed. Raises: Found."""
        weights = [w for w, _ in self.deeds]
        deed = self.rng.choices([d for _, d in self.deeds], weights)[0]
        self.counts[deed.__name__] += 1
        deed()

    def restart(self) -> None:
        """Killed; it must start from what its disk holds."""
        old = self.target
        self.trail.append("restart")
        image = old.store.image()
        old.store.close()
        incarnation = old.core.membership.incarnation
        seed = self.rng.randrange(2**32)
        self.target = Target(seed=seed, image=image, now=old.now, incarnation=incarnation)
        self.pending.clear()
        self._look()
        self.ask("status", {})

    def step(self, what: str, *events: ev.Event) -> None:
        self.trail.append(what[:300])
        began = time.process_time()
        work = calls(lambda: self.target.step(*events))
        self.slowest = max(self.slowest, (time.process_time() - began, what[:200]))
        if work > STEP_CALLS_MAX:
            raise Found(f"a step took {work} calls: {what[:500]}")
        self._look()

    def _look(self) -> None:
        effects, self.target.other_effects = self.target.other_effects, []
        for effect in effects:
            if isinstance(effect, ev.Note):
                if effect.text.startswith("Traceback"):
                    raise Found(
                        f"a guard had to catch our mistake:\n{effect.text}\n"
                        + "\n".join(self.trail)
                    )
            elif isinstance(effect, ev.Cut):
                if effect.link in (MEMBER, STRANGER):
                    self._relink(effect.link)
            else:
                self.pending.append(effect)
        self._steps += 1
        if self._steps % 25 == 0:
            for table in (TASK, RUN):
                rows = self.target.store.tables.rows(table)[-50:]
                self.shapes.learn(table.name, (row.id for row in rows))

    def _relink(self, link: int) -> None:
        peer = BUILD.machine if link == MEMBER else ""
        self.target.step(ev.LinkDown(link), ev.LinkUp(link, peer, False, "http"))

    # --- the member ------------------------------------------------------------------------------

    def _scope(self) -> Scope:
        rng = self.rng
        group = scope_group(BUILD.machine, rng.choice(["room", "x"]))
        return rng.choices([FLEET, scope_to(STUDIO.machine), group, JOURNAL], [12, 4, 2, 1])[0]

    def _push(self, scope: Scope) -> None:
        stream = self.peer.stream(scope)
        if scope == JOURNAL or self.peer.store.log.size(stream) == 0:
            return
        size = self.target.store.log.size(stream)
        if size < self.peer.store.log.size(stream):
            raw = self.peer.segment(size, scope)
            self.step(f"segment of {scope} from {size}", ev.Arrived(MEMBER, Type.SEGMENT, 0, raw))

    def _write(self, kind: str, body: Any, scope: Scope, cause: tuple[Any, ...] = ()) -> None:
        try:
            raw = canon.encode(body)
        except MusterError:
            return
        if len(raw) > BODY_BYTES_MAX:
            return
        actors = ["muster", "op:alice", "claude@build", f"shell@{BUILD.machine[:12]}"]
        made = self.peer.write(kind, raw, scope=scope, cause=cause, actor=self.rng.choice(actors))
        self.trail.append(f"{kind} {raw[:400]!r}")
        self.shapes.learn("entry", [made.id.hex()])
        self.shapes.learn("stream", [str(self.peer.stream(scope))])

    def _causes(self) -> tuple[Any, ...]:
        pool = self.shapes.known.get("entry", [])
        return tuple(
            bytes.fromhex(self.rng.choice(pool)) for _ in range(self.rng.choice((0, 1, 2))) if pool
        )

    def entry(self) -> None:
        """Any kind with a body that fits it, in any scope, citing anything."""
        if self.rng.random() < 0.03:
            # A new incarnation, which may begin with anything.
            self.peer.incarnation = Incarnation(f"{self.rng.getrandbits(128):032x}")
        kind = self.rng.choice(list(BODIES))
        scope = self._scope()
        for _ in range(self.rng.choice((1, 1, 3))):
            self._write(kind, self.shapes.of(BODIES[kind]), scope, self._causes())
        self._push(scope)

    def sequence(self) -> None:
        """What a lease holder may say: of a task that was really assigned to it, in a legal order."""
        rows = [r for r in self.target.store.tables.rows(TASK) if r.machine == BUILD.machine]
        live = [r for r in rows if r.state == "leased"] or rows
        if not live:
            return
        row = self.rng.choice(live)
        epoch = [row.epoch_order, row.epoch_count]
        assigned = (row.assigned,) if row.assigned else ()
        for kind in self.rng.choice((["attempt.start"], ["attempt.start", "attempt.finish"],
                                     ["attempt.finish"], ["attempt.refuse"])):  # fmt: skip
            drawn = self.shapes.of(task_kinds.KINDS[kind])
            drawn = drawn if isinstance(drawn, dict) else {}
            body = {**drawn, "task": row.task, "epoch": epoch}
            self._write(kind, body, FLEET, assigned if self.rng.random() < 0.8 else self._causes())
        self._push(FLEET)

    def _args(self, verb: str) -> dict[str, Any]:
        """Arguments for a verb: what the table declares, and what machines say among themselves."""
        rng, shapes = self.rng, self.shapes
        args: dict[str, Any] = {}
        for arg in VERBS[verb].args:
            if arg.required or rng.random() < 0.5:
                one = shapes.text(arg.name)
                value: Any = {"flag": rng.random() < 0.5, "int": rng.choice((0, 1, 7, -1, 2**53 - 1)),
                              "words": [one, *(shapes.text() for _ in range(rng.choice((0, 0, 2))))]}.get(arg.kind, one)  # fmt: skip
                args[arg.name] = value if rng.random() < 0.97 else shapes.anything()
        task = shapes.any_known("task")
        epoch = [rng.choice((0, 1, self.target.now.wall_ms)), rng.choice((0, 1, 2, 3))]
        extra = {
            "beat": {"holds": [[task, *epoch, shapes.text()]], "mark": "x:1"},
            "hold": {"held": [[task, *epoch]], "gone": [[task, *epoch]], "mark": shapes.text()},
            "release": {"task": task, "epoch": epoch, "reason": shapes.text()},
            "session.wrote": {"files": [["a" * 32, rng.choice(("", shapes.text()))]]},
            "session.met": {"files": [["a" * 32, "", [["claude", shapes.text(), 1]]]], "back": True},
            "renew": {"request": shapes.text()}, "enrol": {"request": shapes.text()},
            "submit": {"tasks": [{"statement": shapes.text("statement"), "task": task, "template": shapes.anything()}]},
        }.get(verb, {})  # fmt: skip
        for name, value in extra.items():
            args[name] = value if rng.random() < 0.8 else shapes.anything()
        return args

    def _frame(self, link: int, type_: Type, payload: bytes, what: str) -> int:
        self._number += 2
        if len(payload) <= FRAME_PAYLOAD_BYTES_MAX:
            self.step(what, ev.Arrived(link, type_, self._number, payload))
        return self._number

    def member_call(self) -> None:
        verb = self.rng.choice(list(VERBS))
        link = MEMBER if self.rng.random() < 0.8 else STRANGER
        request = {"args": self._args(verb), "verb": verb}
        if self.rng.random() < 0.2:
            request["on"] = self.shapes.text("name")
        if self.rng.random() < 0.2:
            request["statement"] = self.shapes.text("statement")
        with suppress(MusterError):
            raw = canon.encode(request)
            self._frame(link, Type.CALL, raw, f"call {raw[:300]!r}")

    def sync(self) -> None:
        shape = self.rng.choice(SYNC)
        drawn = self.shapes.of(shape)
        message = {
            **(drawn if isinstance(drawn, dict) else {}),
            "type": shape.__struct_config__.tag,
        }
        stream = self.peer.stream()
        seal = self.peer.store.log.seal_of(stream)
        heads = message.get("heads")
        for head in heads if isinstance(heads, list) else ():
            if isinstance(head, dict) and seal is not None and self.rng.random() < 0.5:
                head.update(stream=str(stream), seal=seal.note.decode(), size=seal.size)
        with suppress(MusterError):
            raw = canon.encode(message)
            self._frame(MEMBER, Type.OFFER, raw, f"sync {raw[:300]!r}")

    def garbage(self) -> None:
        """Frames of tunnels, answers to nothing, hellos."""
        type_ = self.rng.choice([Type.REPLY, Type.DATA, Type.CREDIT, Type.CLOSE, Type.HELLO])
        raw = self.rng.choice(
            [b"", b".{}", b"+x", b".[]", b'.{"ok":1}', self.shapes.text().encode()[:900]]
        )
        number = self.rng.choice([0, 1, 2, 3, 77])
        self.step(f"{type_.name} {raw[:200]!r}", ev.Arrived(MEMBER, type_, number, raw))

    # --- the user ---------------------------------------------------------------------------------

    def order(self) -> None:
        """Something that needs a signature, signed: what is signed may be as odd as the rest."""
        rng, shapes = self.rng, self.shapes
        verb = rng.choice(["run", "run", "run", "send", "reply", "ack", "thread", "cancel", "retry", "decide", "invite",
                           "grant", "submit"])  # fmt: skip
        args = self._args(verb)
        if verb == "run":
            spec = rng.choice(SPECS)
            # What is meant, as a rule: an order that is refused at once opens nothing.
            repo = "main" if "repo:" in spec or rng.random() < 0.2 else ""
            if rng.random() < 0.2:
                repo = shapes.text()
            base = (
                rng.choice(["", "side", shapes.text("base")])
                if repo
                else rng.choice(["", "", "", shapes.text("base")])
            )
            args = {"base": base, "repo": repo,
                    "spec": spec, "values": rng.choice([{}, {}, {"x": shapes.text()}, {shapes.text()[:99]: "1"}])}  # fmt: skip
        if verb == "submit":
            self._submit()
            return
        name = VERBS[verb].object
        object_ = (
            args["spec"].split("name: ")[1].split("\n")[0]
            if verb == "run"
            else str(args.get(name, "*"))
        )
        try:
            statement = self.target.order(verb, object_[:200] or "*", args)
        except MusterError:
            # Not even its signer would sign that.
            return
        options = {"again": rng.random() < 0.5} if verb == "run" else {}
        self.ask(verb, args, statement=statement, options=options)

    def _submit(self) -> None:
        template: dict[str, Any] = {
            "v": 1,
            "agent": self.rng.choice([["noop"], ["shell"]]),
            "do": self.shapes.text(),
        }
        if self.rng.random() < 0.4:
            template["needs"] = self.shapes.anything()
        with suppress(MusterError):
            self._submit_one(template)

    def _submit_one(self, template: dict[str, Any]) -> None:
        task = self.target.rng.randbytes(16).hex()
        args = task_args(task_kinds.TaskOpen(task=task, template=template))
        statement = sign_statement(
            ALICE.statement, fleet=FLEET_ID, verb="task", object=task, target=STUDIO.machine, args=args,
            nonce=self.rng.randbytes(16), issued_ms=self.target.now.wall_ms, until_ms=self.target.now.wall_ms + 60_000,
        ).decode()  # fmt: skip
        self.ask(
            "submit", {"tasks": [{"task": task, "template": template, "statement": statement}]}
        )

    def question(self) -> None:
        """Everything that a person at this machine may ask, about anything that has a name."""
        local = [
            v.name for v in VERBS.values() if v.runs == "step" and v.auth in ("local", "nothing")
        ]
        verb = self.rng.choice(local)
        self.ask(verb, self._args(verb))

    def ask(self, verb: str, args: Any, **more: Any) -> None:
        try:
            raw = canon.encode({"args": args, "verb": verb, **more})
        except MusterError:
            return
        if len(raw) > FRAME_PAYLOAD_BYTES_MAX:
            return
        self.target.answers.clear()
        number = self._frame(LOCAL, Type.CALL, raw, f"ask {raw[:400]!r}")
        for answer in self.target.answers.get((LOCAL, number), []):
            if not answer.get("ok") and "failed at" in str(answer["error"]["text"]):
                raise Found(f"{verb} failed: {answer}")

    # --- the world --------------------------------------------------------------------------------

    def world(self) -> None:
        """What was begun outside comes to an end, well or badly."""
        rng, shapes = self.rng, self.shapes
        if not self.pending:
            return
        self.pending.rotate(-rng.randrange(len(self.pending)))
        effect = self.pending.popleft()
        match effect:
            case RaiseFence(task, epoch):
                reason = rng.choice(["", "", "", shapes.text()])
                self.step(
                    "fenced",
                    Fenced(task, epoch, reason, (rng.choice((0, 1)), rng.choice((0, 9)))),
                )
            case MoveBranch(task, epoch, _, _, commit):
                reason = rng.choice(["", "", shapes.text()])
                self.step("promoted", Promoted(task, epoch, commit, reason, rng.random() < 0.3))
            case BringBack(move):
                reason = rng.choice(["", shapes.text()])
                told = BroughtBack(move.task, move.branch, move.repo, reason, rng.random() < 0.5)
                self.step("brought back", told)
            case FindBase(run):
                reason = rng.choice(["", "", "", self.shapes.text()])
                commit = "" if reason else "c" * 40
                again = bool(reason) and rng.random() < 0.5
                self.step("base found", BaseFound(run, commit, reason, again))
            case MatchGlob(run, phase):
                names = tuple(rng.choice([shapes.text()[:300], "src/a", "caf\udce9.txt", "a\x01"])
                              for _ in range(rng.choice((0, 1, 3, 40))))  # fmt: skip
                reason = rng.choice(["", "", "", shapes.text()])
                self.step(f"matched {names!r}", Matched(run, phase, names, reason))
            case StartAttempt(opened, assign):
                self._attempt(opened.task, assign.epoch)
            case StopAttempt(task, epoch):
                self.step("stopped", attempt_ended(task, epoch, "killed"))

    def _attempt(self, task: str, epoch: task_kinds.Epoch) -> None:
        rng, shapes = self.rng, self.shapes
        if rng.random() < 0.5:
            self.step("done", attempt_ended(task, epoch, "done", "fine", commit="1" * 40))
            return
        fields = shapes.anything()
        fields = fields if isinstance(fields, dict) else {"text": fields}
        self.step(
            "event",
            AttemptEvent(
                task, epoch, rng.choice(["agent.output", "agent.ask", "agent.said"]), fields
            ),
        )
        many = rng.choice((0, 1, 5, 100))
        end = attempt_ended(
            task, epoch, rng.choice(["done", "done", "failed", "killed"]), summary=shapes.text(), reason=shapes.text(),
            commit=rng.choice(["", "1" * 40]), values={shapes.text()[:80]: shapes.text() for _ in range(rng.choice((0, 2, 30)))},
            artefacts=tuple(shapes.text() for _ in range(many)), usage={"tokens": rng.choice((0, 2**53 - 1, -5))},
            large=rng.choice([{}, {"output": f"blob:{'a' * 64}:{rng.choice((0, 9, 2**20, 2**40))}"},
                              {"output": f"over:{2**30}"}, {shapes.text()[:80]: shapes.text()}]),
        )  # fmt: skip
        self.step(f"ended {end!r}", end)

    def tick(self) -> None:
        """Time passes, sleeps or jumps."""
        target, rng = self.target, self.rng
        boot = rng.choice((100, 1_000, 8_000, 40_000, 400_000))
        wall = boot if rng.random() < 0.95 else rng.choice((-3_600_000, 40 * 86_400_000))
        target.now = Now(target.now.boot_ms + boot, max(1, target.now.wall_ms + wall))
        self.step("tick", ev.Tick())

    def link(self) -> None:
        if self.rng.random() < 0.1:
            self.restart()
            return
        self._relink(MEMBER)
        self._look()

    def facts(self) -> None:
        self._facts()
        self._push(FLEET)

    def _facts(self) -> None:
        """The member can do whatever is asked, so that it is given leases."""
        facts = {"os": "linux", "arch": "x86_64", "cpus": 4, "agents": {"noop": "1", "shell": "1"}, "slots": 8,
                 "labels": ["far"], "repositories": ["main"]}  # fmt: skip
        self._write("machine.facts", facts, FLEET)
