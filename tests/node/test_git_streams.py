"""What a machine tells of a repository of its own through which a push went."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tests.git.repositories import sh
from tests.promise import proves

from muster.errors import Unreachable
from muster.git import repository
from muster.git import serve as remote
from muster.git.fence import POST_PREFIX
from muster.verbs import git as verbs


@proves("channel.git-event")
def test_who_meets_in_a_repository_hears_of_a_push_whose_stream_broke_after_it(
    tmp_path, monkeypatch
):
    place = tmp_path / "main.git"
    sh(tmp_path, "init", "-q", "--bare", str(place))
    told: list[str] = []

    class Server:
        """A push that moves a branch, and of which nothing more is heard."""

        pair = (None, None)

        async def stop(self) -> None:
            tree = sh(place, "hash-object", "-t", "tree", "-w", "/dev/null")
            made = sh(place, "commit-tree", "-m", "left", tree)
            sh(place, "update-ref", f"{POST_PREFIX}near", made)

    async def serve(*_: Any, **__: Any) -> Server:
        return Server()

    async def broken(*_: Any) -> None:
        raise Unreachable("the stream broke")

    monkeypatch.setattr(remote, "serve", serve)
    monkeypatch.setattr(repository, "find", lambda *_: place)
    monkeypatch.setattr(verbs, "_check_kept", lambda *_, **__: None)
    daemon: Any = SimpleNamespace(
        core=None,
        home=SimpleNamespace(socket=""),
        effects=SimpleNamespace(repos=None, mirrors=SimpleNamespace(tell=told.append)),
        mailboxes=SimpleNamespace(left_in=lambda repo: told.append(f"left in {repo}")),
    )
    stream: Any = SimpleNamespace(accept=lambda: None, join=broken)
    wanted = verbs.Wanted(machine="m", repo="main", service="git-receive-pack")
    with pytest.raises(Unreachable):
        asyncio.run(verbs._serve(daemon, stream, wanted, "m"))
    assert told == ["main", "left in main"]
