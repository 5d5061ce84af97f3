"""What strangers, members, agents and other users get from a real daemon: what is theirs, no more."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import psutil
import pytest

from muster.channel.base import Link
from muster.channel.frame import Type, decode, encode, farewell, prefixed
from muster.channel.http import HttpChannel, join
from muster.channel.knock import Knock, knock_name
from muster.channel.tls import Credentials
from muster.errors import Denied, Unreachable
from muster.fleet import certificate
from muster.fleet.machine import Operator
from muster.fleet.statement import sign_statement
from muster.task.evidence import task_args
from muster.task.kinds import TaskOpen
from muster.verbs.table import VERBS
from tests.e2e import checks
from tests.e2e.fleet import Client, Fleet, Machine, canonical, now_ms, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

NOOP = {"v": 1, "agent": ["noop"], "do": "{}"}
SPEC = """\
muster: 1
name: one
phases:
  only:
    agent: shell
    do: "true"
    check: "true"
"""
RUN = {"base": "", "repo": "", "spec": SPEC, "values": {}}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """A hub, and a studio that dials it."""
    with Fleet(["hub", "studio"]) as made:
        made.start()
        yield made


def effects(machine: Machine) -> dict[str, int]:
    """How many entries of each kind a machine holds; denials are what a refusal may leave."""
    log = checks.Log(machine)
    try:
        found = log.rows(
            "select json_extract(cast(header as text), '$.kind') kind, count(*) n from entry group by 1"
        )
    finally:
        log.close()
    idle = ("order.deny", "machine.facts")
    return {row["kind"]: row["n"] for row in found if row["kind"] not in idle}


async def ask(link: Link, number: int, call: bytes) -> dict[str, Any] | None:
    """The answer to a call over a link; None when there is none or the link is cut."""
    try:
        await link.send(encode(Type.CALL, number, call))
        async with asyncio.timeout(3):
            while True:
                frame = decode(await link.receive())
                if (frame.type, frame.channel) == (Type.REPLY, number):
                    found: dict[str, Any] = json.loads(frame.payload[1:])
                    return found
    except (TimeoutError, Unreachable):
        return None


async def as_stranger(fleet: Fleet) -> Link:
    """TLS without a certificate."""
    name = knock_name(fleet.fleet, "", now_ms())
    return await join(f"127.0.0.1:{fleet.hub.port}", lambda _der: fleet.hub.id, name=name)


async def as_studio(fleet: Fleet) -> Link:
    """A second link of the studio, with its keys but without its daemon."""
    facts = fleet["studio"].home.facts()
    certificates = certificate.CertificateChain(facts["certificate"].encode(), facts["ca"].encode())
    credentials = Credentials(*certificate.tls_files(fleet["studio"].identity, certificates))
    channel = HttpChannel(credentials, lambda _der: fleet.hub.id)
    channel.knock = Knock(fleet.fleet, "", now_ms, lambda: False)
    return await channel.dial(f"127.0.0.1:{fleet.hub.port}")


def question(verb: str, args: Mapping[str, Any], **more: Any) -> bytes:
    return canonical({"args": dict(args), "verb": verb, **more})


@proves("node.strangers-enrol-only")
def test_a_stranger_gets_enrolment_and_nothing_else_of_all_verbs(fleet):
    before = effects(fleet.hub)

    async def try_all() -> dict[str, str]:
        found = {}
        link = await as_stranger(fleet)
        for number, verb in enumerate([*VERBS, "no.such-verb", "__class__"], 1):
            for more in ({}, {"on": "studio"}, {"hops": 1}):
                answer = await ask(link, number, question(verb, {"what": "x", "name": "x"}, **more))
                kind = "cut" if answer is None else str(answer.get("error", {}).get("kind", "ok"))
                found[f"{verb} {more}"] = kind
                if answer is None:
                    link = await as_stranger(fleet)
        await link.close("done")
        return found

    found = asyncio.run(try_all())
    opened = {
        name: kind for name, kind in found.items() if kind not in ("Denied", "NotFound", "cut")
    }
    assert {name.split()[0] for name in opened} <= {"enrol", "authority"}, opened
    assert all(kind in ("Malformed", "Forged") for name, kind in opened.items() if "enrol" in name)
    assert effects(fleet.hub) == before


@proves("node.strangers-enrol-only")
def test_a_stranger_that_speaks_of_streams_is_refused_and_in_the_end_cut(fleet):
    before = effects(fleet.hub)

    async def shout() -> int:
        link = await as_stranger(fleet)
        kinds = (
            Type.OFFER,
            Type.WANT,
            Type.SEGMENT,
            Type.COSIGN,
            Type.HELLO,
            Type.DATA,
            Type.REPLY,
        )
        sent = 0
        with contextlib.suppress(Unreachable):
            for turn in range(300):
                await link.send(
                    encode(kinds[turn % len(kinds)], turn % 3, b'{"heads":[]}' * (turn % 4))
                )
                sent += 1
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                while True:
                    await link.receive()
        return sent

    asyncio.run(shout())
    assert effects(fleet.hub) == before
    assert fleet.hub.ask("status")["name"] == "hub"
    assert "mistake" not in fleet.hub.log()


def _damaged(statement: str) -> str:
    """The statement with one digit of its signature changed, whatever the digit was."""
    digit = "1" if statement[-9] == "0" else "0"
    return statement[:-9] + digit + statement[-8:]


def forged(fleet: Fleet) -> dict[str, bytes]:
    """Calls with which a member might try to give orders, by what is wrong with them."""
    hub, studio = fleet.hub, fleet["studio"]
    args = {"text": ["obey"], "to": "all"}
    mine = Operator(b"\x07" * 32)

    def signed(signer: Any, target: str, what: Any = args, verb: str = "send", **more: int) -> str:
        issued = now_ms() + more.get("early_ms", 0)
        return sign_statement(
            signer, fleet=fleet.fleet, verb=verb, object="all", target=target, args=what,
            nonce=os.urandom(16), issued_ms=issued, until_ms=issued + more.get("life_ms", 60_000),
        ).decode()  # fmt: skip

    alice = fleet.operator.statement
    good = signed(alice, hub.id)
    return {
        "no statement": question("send", args),
        "an unknown operator": question("send", args, statement=signed(mine.statement, hub.id)),
        "the machine's own root key": question(
            "send", args, statement=signed(studio.identity.root, hub.id)
        ),
        "the machine's statement key": question(
            "send", args, statement=signed(studio.identity.signer("statement"), hub.id)
        ),
        "other arguments": question("send", args | {"text": ["obey me"]}, statement=good),
        "another verb": question("revoke", {"name": "all"}, statement=good),
        "another target": question("send", args, statement=signed(alice, studio.id)),
        "an expired order": question(
            "send", args, statement=signed(alice, hub.id, early_ms=-3_600_000)
        ),
        "an order from the future": question(
            "send", args, statement=signed(alice, hub.id, early_ms=3_600_000)
        ),
        "a capability from nowhere": question("send", args, capability="ab" * 40),
        "a damaged signature": question("send", args, statement=_damaged(good)),
        "another fleet": question("send", args, statement=good.replace(fleet.fleet, "0" * 64)),
    }


@proves("node.no-forged-orders")
def test_a_member_cannot_forge_bend_or_stretch_an_operators_order(fleet):
    before = effects(fleet.hub)

    async def try_all() -> dict[str, Any]:
        link = await as_studio(fleet)
        found = {}
        for number, (what, call) in enumerate(forged(fleet).items(), 1):
            found[what] = await ask(link, number, call)
        await link.close("done")
        return found

    for what, answer in asyncio.run(try_all()).items():
        assert answer is not None, what
        assert answer["ok"] is False, what
        assert answer["error"]["kind"] in ("Denied", "Forged", "Malformed"), (what, answer)
    assert effects(fleet.hub) == before


@proves("node.no-forged-orders")
def test_a_member_gets_none_of_the_verbs_that_are_local_or_an_operators(fleet):
    before = effects(fleet.hub)

    async def try_all() -> dict[str, Any]:
        link = await as_studio(fleet)
        found = {}
        for number, verb in enumerate(VERBS.values(), 1):
            if verb.auth in ("local", "order", "agent"):
                call = question(verb.name, {a.name: "x" for a in verb.args if a.required})
                found[verb.name] = await ask(link, number, call)
        await link.close("done")
        return found

    for verb, answer in asyncio.run(try_all()).items():
        assert answer is not None, verb
        assert answer.get("ok") is False, (verb, answer)
    assert effects(fleet.hub) == before
    assert fleet.hub.alive


@proves("node.passing-on-adds-nothing")
def test_a_call_that_was_passed_on_has_no_authority_of_who_passed_it():
    with Fleet(["hub", "studio", "laptop"]) as fleet:
        fleet.start()
        until(lambda: not checks.converged(fleet), lambda: checks.converged(fleet))
        before = effects(fleet["laptop"])

        async def try_all() -> dict[str, Any]:
            link = await as_studio(fleet)
            found = {}
            for number, verb in enumerate([v for v in VERBS.values() if v.auth == "peer"], 1):
                args = {"task": "ab" * 16, "epoch": [1, 1], "reason": "die", "mark": "m", "held": [],
                        "gone": [], "holds": []}  # fmt: skip
                found[verb.name] = await ask(link, number, question(verb.name, args, on="laptop"))
            await link.close("done")
            return found

        for verb, answer in asyncio.run(try_all()).items():
            assert answer is None or answer.get("ok") is False, (verb, answer)
            assert answer is None or answer["error"]["kind"] in ("Denied", "Malformed"), (
                verb,
                answer,
            )
        assert effects(fleet["laptop"]) == before


@proves("node.replay-does-nothing")
def test_every_recorded_call_shown_three_times_more_changes_nothing(fleet, monkeypatch):
    recorded: list[bytes] = []
    plain = Client.raw

    def recording(client: Client, payload: bytes) -> Any:
        recorded.append(payload)
        return plain(client, payload)

    hub, asked = fleet.hub, {"text": ["do it"], "to": "hub", "wait": True}
    came = fleet["studio"].order("send", "hub", asked)["message"]
    monkeypatch.setattr(Client, "raw", recording)
    with hub.client() as client:
        client.order("send", "studio", {"text": ["once"], "to": "studio", "wait": True})
        client.order("thread", "crew", {"name": "crew", "add": ["studio"]})
        client.order("ack", came, {"message": came, "note": "mine"})
        client.order("invite", "tablet", {"name": "tablet"})
        run = client.order("run", "one", RUN)
        until(
            lambda: client.call("runs", {"run": run["run"]})["state"] == "done", "the run is done"
        )
        task = TaskOpen(task="cd" * 16, template=NOOP)
        statement = fleet.sign("task", task.task, hub, task_args(task))
        item = {"task": task.task, "template": NOOP, "statement": statement}
        client.call("submit", {"tasks": [item]})
        until(lambda: not client.call("tasks", {}), "the task is settled")
    monkeypatch.setattr(Client, "raw", plain)
    orders = [raw for raw in recorded if b"statement" in raw]
    assert len(orders) == 6
    until(lambda: not checks.converged(fleet), lambda: checks.converged(fleet))
    before = {m.name: effects(m) for m in fleet.machines.values()}
    with hub.client() as client:
        for raw in orders * 3:
            answer = client.raw(raw)
            assert answer["ok"] is False, raw
            assert answer["error"]["kind"] == "Conflict", answer
    # Nor on another machine, nor after a restart.
    with fleet["studio"].client() as client:
        assert all(client.raw(raw)["ok"] is False for raw in orders)
    hub.kill()
    hub.start()
    with hub.client() as client:
        assert all(client.raw(raw)["error"]["kind"] == "Conflict" for raw in orders)
    until(lambda: not checks.converged(fleet), lambda: checks.converged(fleet))
    assert {m.name: effects(m) for m in fleet.machines.values()} == before


AGENT = """\
muster send studio "from an agent" --json > sent.json
muster run other.yaml > run.txt 2>&1 && exit 9
muster revoke studio --yes > revoke.txt 2>&1 && exit 8
cat run.txt revoke.txt
printf '%s' "$MUSTER_CAPABILITY" > "$E2E_NOTES"
echo "it is $MUSTER_CAPABILITY"
"""


@proves("node.agents-get-their-capability")
def test_an_agent_may_send_with_its_capability_and_order_nothing(fleet):
    hub = fleet.hub
    script = f"printf '%s' '{SPEC.replace(chr(10), chr(92) + 'n')}' > other.yaml\n" + AGENT
    template = {
        "v": 1,
        "agent": ["shell"],
        "do": script,
        "needs": {"machine": "hub"},
        "deliver": ["sent.json"],
    }
    body = TaskOpen(task=os.urandom(16).hex(), template=template)
    statement = fleet.sign("task", body.task, hub, task_args(body))
    with hub.client() as client:
        client.call(
            "submit", {"tasks": [{"task": body.task, "template": template, "statement": statement}]}
        )
        until(
            lambda: client.call("tasks", {"all": True})[0]["state"] in ("done", "failed"), "settled"
        )
        task = next(t for t in client.call("tasks", {"all": True}) if t["task"] == body.task)
    assert task["state"] == "done", task

    def heard() -> list[dict[str, Any]]:
        inbox = fleet["studio"].ask("inbox", {"all": True})
        return [m for m in inbox if m["text"] == "from an agent"]

    found = until(heard, "the agent's message came")
    assert [m["from"] for m in found] == ["shell@hub"]
    assert "studio" in hub.linked()
    # What it was given is no part of the log, and worth nothing when the task is over.
    token = fleet.notes.read_text()
    assert task["summary"].startswith("it is ")
    assert token not in json.dumps(task)
    with hub.client() as client, pytest.raises(Denied):
        client.call("send", {"text": ["late"], "to": "studio"}, capability=token)


@proves("node.streams-end-with-the-caller")
def test_programs_that_ask_for_git_and_are_gone_at_once_leave_nothing_running():
    with Fleet(["hub"]) as fleet:
        fleet.add_repository()
        hub = fleet.hub
        hub.ready(hub.begin())
        args = {"machine": "hub", "repo": "main", "service": "git-upload-pack"}
        call = encode(Type.CALL, 1, canonical({"args": args, "verb": "git.connect"}))
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as there:
                there.connect(hub.home.socket)
                there.sendall(prefixed(call) + farewell("bye"))
        assert hub.ask("status")["name"] == "hub"
        until(lambda: not _git_of(fleet), lambda: f"left running: {_git_of(fleet)}", within_s=10)


def _git_of(fleet: Fleet) -> list[str]:
    """The git programs that serve a repository of this fleet."""
    found = [each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])]
    return [" ".join(c) for c in found if "upload-pack" in c and str(fleet.root) in " ".join(c)]
