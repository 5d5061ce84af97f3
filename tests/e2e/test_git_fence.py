"""Two machines, one fence: real git over a stream, against hooks that ask a real socket.

`Hub` is a small daemon: the socket the hooks ask, and one socket for each machine, where its
`git-remote-muster` finds "its" daemon. A machine's requests reach the hub as that machine, as a
proven link would carry them; the node replaces exactly this file's `Hub`.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from muster.channel import frame, ipc
from muster.channel.base import Link
from muster.channel.flow import Flow
from muster.channel.stream import Stream
from muster.cli import git_hook
from muster.errors import Denied, MusterError, NotFound, Refused, Unreachable
from muster.git import cache, collection, ref, repository, worktree
from muster.git import commit as commits
from muster.git import serve as remote
from muster.git.fence import Epoch, Update, attempt_ref, may_push_all
from muster.node.link import failure
from tests.git.repositories import SIGNATURE, checkout, commit, refs, sh, verify, wait
from tests.promise import proves

pytestmark = pytest.mark.e2e

STUDIO, LAPTOP, OWNER = "aa" * 32, "bb" * 32, "cc" * 32
ONE, TWO = Epoch(1, 1), Epoch(1, 2)
ORIGIN = worktree.Origin("main", "muster::hub/main")
BRANCH = "refs/heads/muster/r1/test"


class Hub:
    """A daemon in a thread: it serves repositories and answers the hooks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repos = root / "hub" / "repos"
        self.current: dict[str, tuple[Epoch, str]] = {}
        self.writers = {LAPTOP}
        # Runs on the hub after it decided yes and before its answer is sent.
        self.before_yes: Callable[[], Awaitable[None]] | None = None
        self.answer: bytes | None = None
        self.asked = 0
        self.codes: list[int] = []
        self.ended = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listeners: dict[str, object] = {}
        for name, peer in [("hub", ""), ("studio", STUDIO), ("laptop", LAPTOP), ("owner", OWNER)]:
            self.listen(name, peer)

    # --- what the fence asks for ---

    def epoch(self, task: str) -> Epoch | None:
        return self.current[task][0] if task in self.current else None

    def holder(self, task: str) -> str | None:
        return self.current[task][1] if task in self.current else None

    def owner(self, what: str, name: str) -> str | None:
        return OWNER

    def bars(self, peer: str) -> str | None:
        return None if peer in self.writers else "no `push` was granted"

    # --- the daemon ---

    def sock(self, name: str) -> str:
        return str(self.root / f"{name}.sock")

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def listen(self, name: str, peer: str) -> None:
        async def on_link(link: Link) -> None:
            await self._converse(link, peer)

        self._listeners[name] = self.run(ipc.IpcChannel().listen(self.sock(name), on_link))

    def hang_up(self, name: str) -> None:
        self.run(self._listeners.pop(name).close())

    def assign(self, task: str, epoch: Epoch, holder: str) -> None:
        """As the owner does it: first the fence, then the lease."""
        wait(ref.register(self.repos / "main.git", task, epoch))
        self.current[task] = (epoch, holder)

    def stop(self) -> None:
        for name in list(self._listeners):
            self.hang_up(name)

        async def rest():
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _converse(self, link: Link, peer: str) -> None:
        frames: asyncio.Queue[bytes] = asyncio.Queue()

        async def write() -> None:
            with contextlib.suppress(Unreachable):
                while True:
                    await link.send(await frames.get())

        async def drained() -> None:
            await asyncio.sleep(0)

        flow = Flow(lambda kind, payload: frames.put_nowait(frame.encode(kind, 1, payload)))
        stream = Stream(flow, drained)
        writing, serving = asyncio.create_task(write()), None
        try:
            while True:
                found = frame.decode(await link.receive())
                if found.type is frame.Type.CALL:
                    question = json.loads(found.payload)
                    if question["verb"] == "git.may-push":
                        await self._may_push(link, question["args"])
                    else:
                        serving = asyncio.create_task(
                            self._connect(link, peer, question["args"], stream)
                        )
                else:
                    flow.feed(found.type, found.payload)
        except Unreachable:
            flow.feed(frame.Type.CLOSE, b"")
        finally:
            if serving is not None:
                await asyncio.wait([serving])
            writing.cancel()

    async def _may_push(self, link: Link, question: dict) -> None:
        self.asked += 1
        moves = [Update(*move) for move in question["updates"]]
        reason = may_push_all(question["peer"], moves, self)
        if reason is None and self.before_yes is not None:
            await self.before_yes()
        said = {"ok": True, "value": {}} if reason is None else failure(Denied(reason))
        payload = b"." + json.dumps(said).encode() if self.answer is None else self.answer
        await link.send(frame.encode(frame.Type.REPLY, 1, payload))

    async def _connect(self, link: Link, peer: str, question: dict, stream: Stream) -> None:
        async def reply(**said) -> None:
            await link.send(frame.encode(frame.Type.REPLY, 1, b"." + json.dumps(said).encode()))

        try:
            if question["machine"] != "hub":
                raise NotFound(f"There is no machine {question['machine']!r} in this fleet.")
            repo = repository.find(self.repos, question["repo"])
        except MusterError as error:
            await reply(**failure(error))
            return
        await reply(ok=True, value={"channel": 1})
        server = await remote.serve(repo, question["service"], peer=peer, sock=self.sock("hub"))
        code = 1
        try:
            await stream.join(*server.pair)
            await server.finish()
            flow_end, code = "", 0
        except MusterError as error:
            flow_end = str(error)
        finally:
            await server.stop()
        stream.flow.close(flow_end)
        self.codes.append(code)
        self.ended.set()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    helper = tmp_path / "bin" / "git-remote-muster"
    helper.parent.mkdir()
    helper.write_text(f'#!/bin/sh\nexec {sys.executable} -I -m muster.cli.git_remote "$@"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    hub = Hub(tmp_path)
    wait(repository.add(hub.repos, "main", str(checkout(tmp_path / "source"))))
    yield hub
    hub.stop()


class Machine:
    """One machine's home and workshop."""

    def __init__(self, hub: Hub, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hub, self.name = hub, name
        self.home = hub.root / name
        self.shop = worktree.Worktrees(self.home / "repos-cache", self.home / "work")
        self._environment = monkeypatch

    def act(self, work):
        """Do something as this machine: its daemon's socket is the one in the environment."""
        self._environment.setenv("MUSTER_SOCK", self.hub.sock(self.name))
        return wait(work)

    def attempt(self, epoch: Epoch, text: str, task: str = "t1") -> tuple[worktree.Worktree, str]:
        tree = self.act(self.shop.open(ORIGIN, task, epoch, [], SIGNATURE))
        (tree.path / "result.txt").write_text(text)
        return tree, self.act(collection.collect(tree, ["result.txt"], text, SIGNATURE)).commit

    def push(self, tree: worktree.Worktree, made: str) -> str:
        return self.act(self.shop.push(tree, made))

    def clone(self) -> Path:
        path = self.home / "clone"
        path.mkdir(parents=True)
        self.git(path, "clone", "-q", ORIGIN.url, ".")
        return path

    def git(self, cwd: Path, *args: str) -> str:
        return sh(cwd, *args, env={"MUSTER_SOCK": self.hub.sock(self.name)})


@pytest.fixture
def studio(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(hub, "studio", monkeypatch)


@pytest.fixture
def laptop(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(hub, "laptop", monkeypatch)


def main(hub: Hub) -> Path:
    return hub.repos / "main.git"


@proves("git.tunnel", "git.attempt-ref-only")
def test_an_attempt_travels_to_the_hub_and_becomes_the_branch(hub, studio):
    hub.assign("t1", ONE, STUDIO)
    tree, made = studio.attempt(ONE, "done")
    studio.push(tree, made)
    settled = ref.Promotion("t1", ONE, BRANCH, made, tree.base, None, None)
    wait(ref.promote(main(hub), settled))
    maker = commits.Maker(SIGNATURE.agent, SIGNATURE.machine, SIGNATURE.signer.public)
    verify(main(hub), made, maker)
    assert refs(main(hub))[BRANCH] == made
    later = studio.act(studio.shop.open(ORIGIN, "t2", ONE, [cache.Base("test", made)], SIGNATURE))
    assert (later.path / "result.txt").read_text() == "done"
    assert set(hub.codes) == {0}


@proves("git.zombie-harmless")
def test_a_zombies_late_push_harms_nothing(hub, studio, laptop):
    hub.assign("t1", ONE, STUDIO)
    zombie, late = studio.attempt(ONE, "late")
    hub.assign("t1", TWO, LAPTOP)
    tree, made = laptop.attempt(TWO, "in time")
    laptop.push(tree, made)
    wait(ref.promote(main(hub), ref.Promotion("t1", TWO, BRANCH, made, tree.base, None, None)))
    before = refs(main(hub))
    with pytest.raises(Refused, match="stale"):
        studio.push(zombie, late)
    assert refs(main(hub)) == before


@proves("git.zombie-harmless", "git.transaction-checks-fence")
def test_an_epoch_that_rises_after_the_hub_said_yes_still_refuses(hub, studio):
    hub.assign("t1", ONE, STUDIO)
    tree, made = studio.attempt(ONE, "slow")

    async def rise() -> None:
        await ref.register(main(hub), "t1", TWO)

    hub.before_yes = rise
    with pytest.raises(MusterError, match="epoch 1-1 of task t1 is not 1-2"):
        studio.push(tree, made)
    assert hub.asked == 1
    assert attempt_ref("t1", ONE) not in refs(main(hub))
    assert wait(ref.epoch(main(hub), "t1")) == TWO


@proves("git.attempt-ref-only")
def test_another_machine_cannot_push_the_attempt(hub, laptop):
    hub.assign("t1", ONE, STUDIO)
    tree, made = laptop.attempt(ONE, "not mine")
    before = refs(main(hub))
    with pytest.raises(Refused, match="held by another machine"):
        laptop.push(tree, made)
    assert refs(main(hub)) == before


@proves("git.fails-closed")
@pytest.mark.parametrize(
    "answer",
    [b"", b"yes", b"true", b"[]", b'{"ok":1}', b'{"ok":"true"}', b"{}", b"\xff", b'{"ok":false}'],
)
def test_any_answer_but_a_clear_yes_refuses(hub, studio, answer):
    hub.assign("t1", ONE, STUDIO)
    tree, made = studio.attempt(ONE, "x")
    hub.answer = answer
    before = refs(main(hub))
    with pytest.raises(Refused):
        studio.push(tree, made)
    assert hub.asked == 1
    assert refs(main(hub)) == before


@proves("git.fails-closed")
def test_without_a_daemon_to_ask_nothing_is_pushed(hub, studio):
    hub.assign("t1", ONE, STUDIO)
    tree, made = studio.attempt(ONE, "x")
    hub.hang_up("hub")
    before = refs(main(hub))
    with pytest.raises(Unreachable, match="no daemon runs here"):
        studio.push(tree, made)
    assert refs(main(hub)) == before
    hub.listen("hub", "")
    studio.push(tree, made)
    assert refs(main(hub))[attempt_ref("t1", ONE)] == made


@proves("git.fails-closed")
def test_a_daemon_that_is_silent_or_hangs_up_is_a_no(hub, monkeypatch, tmp_path):
    monkeypatch.setattr("muster.limits.GIT_HOOK_MS_MAX", 300)
    move = Update(attempt_ref("t1", ONE), "0" * 40, "1" * 40)
    for word in ("silent", "hang up"):

        async def on_link(link: Link, word: str = word) -> None:
            await link.receive()
            if word == "silent":
                await link.receive()

        path = str(tmp_path / "quiet.sock")
        listener = hub.run(ipc.IpcChannel().listen(path, on_link))
        asked = {"MUSTER_PEER": STUDIO, "MUSTER_SOCK": path, "MUSTER_REPO": "main"}
        for name, text in asked.items():
            monkeypatch.setenv(name, text)
        with pytest.raises(Unreachable):
            git_hook.pre_receive([move])
        hub.run(listener.close())


@proves("git.fails-closed")
def test_a_hook_whose_interpreter_is_gone_refuses(hub, studio):
    hub.assign("t1", ONE, STUDIO)
    repository.write_guard(main(hub), "/gone/python3")
    env = {"MUSTER_PEER": STUDIO, "MUSTER_SOCK": hub.sock("hub")}
    source = hub.root / "source"
    before = refs(main(hub))
    with pytest.raises(AssertionError, match="declined"):
        sh(source, "push", str(main(hub)), f"HEAD:{attempt_ref('t1', ONE)}", env=env)
    assert refs(main(hub)) == before
    # The daemon's own door mends the guard before it serves.
    tree, made = studio.attempt(ONE, "x")
    studio.push(tree, made)


@proves("git.fails-closed")
@pytest.mark.parametrize("missing", ["MUSTER_PEER", "MUSTER_SOCK"])
def test_a_push_without_a_proven_machine_is_refused(hub, missing):
    hub.assign("t1", ONE, STUDIO)
    env = {"MUSTER_PEER": STUDIO, "MUSTER_SOCK": hub.sock("hub")} | {missing: ""}
    before = refs(main(hub))
    with pytest.raises(AssertionError, match="muster: refused"):
        sh(hub.root / "source", "push", str(main(hub)), "HEAD:refs/heads/x", env=env)
    assert refs(main(hub)) == before
    assert hub.asked == 0


@proves("git.attempt-ref-only")
def test_branches_are_neither_forced_nor_deleted(hub, laptop, studio):
    clone = laptop.clone()
    commit(clone, "forward")
    laptop.git(clone, "push", "-q", "origin", "HEAD:main")
    before = refs(main(hub))
    sh(clone, "checkout", "-q", "--orphan", "other")
    commit(clone, "rewritten")
    cases = [
        (laptop, "+HEAD:refs/heads/main", "rewritten"),
        (laptop, ":refs/heads/main", "deleted"),
        (laptop, f"HEAD:{BRANCH}", "owner of run"),
        (laptop, "HEAD:refs/tags/v1", "may be pushed"),
        (laptop, "HEAD:refs/muster/fence/t1", None),
        (studio, "HEAD:refs/heads/new", "no `push` was granted"),
    ]
    for machine, refspec, reason in cases:
        with pytest.raises(AssertionError, match=reason):
            machine.git(clone, "push", "-q", ORIGIN.url, refspec)
    assert refs(main(hub)) == before


@proves("git.attempt-ref-only")
def test_an_attempt_moves_forward_and_is_not_rewritten(hub, studio):
    hub.assign("t1", ONE, STUDIO)
    clone = studio.clone()
    commit(clone, "one")
    studio.git(clone, "push", "-q", "origin", f"HEAD:{attempt_ref('t1', ONE)}")
    made = commit(clone, "two")
    studio.git(clone, "push", "-q", "origin", f"HEAD:{attempt_ref('t1', ONE)}")
    sh(clone, "commit", "-q", "--amend", "--allow-empty", "-m", "changed")
    with pytest.raises(AssertionError, match="forward"):
        studio.git(clone, "push", "-q", "-f", "origin", f"HEAD:{attempt_ref('t1', ONE)}")
    assert refs(main(hub))[attempt_ref("t1", ONE)] == made


@proves("git.remote-owner")
def test_an_owner_on_another_machine_fences_and_promotes_through_the_tunnel(hub, studio):
    owner = Machine(hub, "owner", studio._environment)
    here = checkout(owner.home / "repo")
    owner.act(ref.register(here, "t1", ONE, ORIGIN.url))
    hub.current["t1"] = (ONE, STUDIO)
    tree, made = studio.attempt(ONE, "done")
    studio.push(tree, made)
    settled = ref.Promotion("t1", ONE, BRANCH, made, tree.base, None, None)
    owner.act(ref.promote_remote(here, ORIGIN.url, settled))
    owner.act(ref.register(here, "t1", TWO, ORIGIN.url))
    before = refs(main(hub))
    assert before[BRANCH] == made
    with pytest.raises(Refused):
        owner.act(ref.register(here, "t1", ONE, ORIGIN.url))
    with pytest.raises(MusterError):
        studio.act(ref.register(here, "t1", Epoch(1, 3), ORIGIN.url))
    assert refs(main(hub)) == before


@proves("git.tunnel")
def test_much_more_than_a_window_arrives_whole_both_ways(hub, studio):
    hub.assign("t1", ONE, STUDIO)
    clone = studio.clone()
    data = os.urandom(9 * 1024 * 1024)
    (clone / "big.bin").write_bytes(data)
    made = commit(clone, "big")
    studio.git(clone, "push", "-q", "origin", f"HEAD:{attempt_ref('t1', ONE)}")
    assert refs(main(hub))[attempt_ref("t1", ONE)] == made
    again = studio.home / "again"
    again.mkdir()
    sh(again, "init", "-q")
    studio.git(again, "fetch", "-q", ORIGIN.url, attempt_ref("t1", ONE))
    sh(again, "checkout", "-q", "FETCH_HEAD")
    assert (again / "big.bin").read_bytes() == data


@proves("git.tunnel")
def test_a_pusher_that_dies_in_the_middle_changes_nothing(hub, studio):
    hub.assign("t1", ONE, STUDIO)
    clone = studio.clone()
    (clone / "big.bin").write_bytes(os.urandom(4 * 1024 * 1024))
    commit(clone, "big")
    before = refs(main(hub))
    hub.ended.clear()
    reached, go = threading.Event(), threading.Event()

    async def hold() -> None:
        reached.set()
        await asyncio.to_thread(go.wait, 20)

    hub.before_yes = hold
    push = subprocess.Popen(
        ["git", "push", "-q", "origin", f"HEAD:{attempt_ref('t1', TWO)}"],
        cwd=clone,
        env=os.environ | {"MUSTER_SOCK": hub.sock("studio")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    hub.current["t1"] = (TWO, STUDIO)
    assert reached.wait(20)
    os.killpg(push.pid, signal.SIGKILL)
    push.wait(10)
    # The tunnel's git has ended while the hub still owes its answer.
    assert hub.ended.wait(20)
    go.set()
    assert refs(main(hub)) == before
    assert hub.codes[-1] != 0
    assert not [path for path in main(hub).rglob("*") if path.suffix == ".lock"]
    # Git leaves the objects it had taken in aside; nothing sees them, and the sweep takes them.
    repository.sweep(hub.repos, main(hub).stat().st_mtime + 3600)
    assert not list((main(hub) / "objects").glob("*incoming*"))


@proves("git.tunnel", "git.errors-name-the-reason")
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("muster::nowhere/main", "no machine 'nowhere'"),
        ("muster::hub/other", "no repository 'other'"),
        ("muster::hub/../main", "not an address"),
        ("muster::hub", "not an address"),
    ],
)
def test_an_address_that_leads_nowhere_says_so(hub, studio, url, said):
    with pytest.raises(AssertionError, match=said):
        studio.git(hub.root, "ls-remote", url)


@proves("git.tunnel")
def test_without_a_local_daemon_git_says_so(hub, studio):
    with pytest.raises(AssertionError, match="muster up"):
        sh(hub.root, "ls-remote", ORIGIN.url, env={"MUSTER_SOCK": str(hub.root / "none.sock")})


@proves("git.light-start")
@pytest.mark.parametrize("module", ["git_hook", "git_remote"])
def test_what_git_starts_imports_nothing_heavy(module):
    heavy = {"asyncio", "msgspec", "ssl", "nacl", "cryptography", "apsw", "typing_extensions"}
    code = f"import sys, muster.cli.{module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert not heavy & set(done.stdout.split())
