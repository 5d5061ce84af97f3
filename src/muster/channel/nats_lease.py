"""Leases at a NATS server: a write counts where nobody wrote since the revision that it names.

Rule 1: a revision is the place of a write in the servers' stream. It is what ranks two writers, and
no clock does; whoever writes above the same revision as another one is refused.
Rule 2: a read says nothing of whether the servers have a quorum, and may be old: only a write that
was acknowledged counts.
Rule 3: each writes under its own name, which at a server of the fleet is a part of the subject that
its account may publish to. What was written is somebody's word, of so many bytes. Servers compare
with what anybody wrote: whoever judges reads the last of each whom it believes, at that moment.
Rule 4: a server before 2.11 compares with the last of the writer alone, and says nothing of it: two
would have a lease at once. It is asked for none.

    stream   MUSTER_LEASE   of subjects   muster.lease.<whose work>.<writer>
"""

import json
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple

from muster.channel.nats_client import Login, NatsClient
from muster.channel.nats_waits import EXISTS
from muster.errors import Unreachable
from muster.limits import ELECTION_BYTES_MAX

STREAM: Final = "MUSTER_LEASE"
READ: Final = f"$JS.API.DIRECT.GET.{STREAM}"
# While no server leads the stream nobody answers: it is asked again, before the lease is lost.
_ANSWER_S: Final = 2.0
_SUBJECT: Final = "muster.lease"
# The first that knows Nats-Expected-Last-Subject-Sequence-Subject, and reads several subjects at
# one moment (nats-server 2.11.0).
_VERSION_MIN: Final = (2, 11)
_VERSION: Final = re.compile(r"v?([0-9]{1,5})\.([0-9]{1,5})\.[0-9]")
# JetStream says so where another one wrote first, or is writing.
_NOT_THE_LAST: Final = frozenset({10071, 10164})
# A stream of as many copies as the servers are not.
_NO_COPIES: Final = frozenset({10005, 10074, 10123})
_COPIES: Final = 3
# A hundred machines, each of which writes about the work of each, take a third of it.
_BYTES_MAX: Final = 64 * 1024 * 1024


class Leased(NamedTuple):
    """The newest of a lease: its revision, who wrote it, and what."""

    revision: int
    by: str
    said: bytes


class NatsLeases(NatsClient):
    """See the rules at the top of this file. The machine of this client is the writer."""

    def __init__(self, where: str, machine: str, login: Callable[[], Login]) -> None:
        self._me, self._turn = machine, 0

        def turned() -> Login:
            servers, options = login()
            number = self._turn % max(len(servers), 1)
            return Login(servers[number:] + servers[:number], options)

        # It has no mailbox: where that lies on a server that is gone, nobody waits for it.
        super().__init__(where, "", turned)

    async def elsewhere(self) -> None:
        """Ask another server the next time: one that others do not reach has no quorum."""
        self._turn += 1
        async with self._dialling:
            await self._let_go()

    async def _reach(self) -> Any:
        """As any client; its server knows what a lease needs."""
        client = await super()._reach()
        said = client._server_info.get("version")
        match = _VERSION.match(said) if isinstance(said, str) else None
        if match is None or (int(match[1]), int(match[2])) < _VERSION_MIN:
            least = ".".join(map(str, _VERSION_MIN))
            raise Unreachable(
                f"{self._where} is nats-server {str(said)[:20]!r}, which keeps no leases: who "
                f"stands in is elected at {least} or newer, so put a newer nats-server there"
            )
        return client

    async def newest(self, of: str) -> Leased | None:
        """What is there now, as far as the server that answers knows. Raises: Unreachable."""
        found = await self._read({"last_by_subj": f"{_SUBJECT}.{of}.*"}, of, 1)
        return found[0] if found else None

    async def last_of(self, of: str, writers: Collection[str]) -> tuple[int, list[Leased]]:
        """The newest revision of anybody (0: none), and what each of these wrote last until then.

        Another one may have written since: then nothing can be written above that revision.
        Raises: Unreachable.
        """
        newest = await self.newest(of)
        if newest is None:
            return 0, []
        # Read at one moment of one server, with what is newest: so it is no older than that.
        asked = sorted({*writers, newest.by})
        subjects = [f"{_SUBJECT}.{of}.{each}" for each in asked]
        more = {"multi_last": subjects, "batch": len(subjects)}
        found = await self._read(more, of, len(subjects) + 1)
        revision = max((each.revision for each in found), default=0)
        if revision < newest.revision:
            raise Unreachable(f"{self._where} answers about a lease of before: it is asked again")
        return revision, [each for each in found if each.by in writers]

    async def _read(self, ask: dict[str, Any], of: str, most: int) -> list[Leased]:
        found: list[Leased] = []
        async with self._reached() as client:
            inbox = client.new_inbox()
            answers = await client.subscribe(inbox)
            try:
                await client.publish(READ, json.dumps(ask).encode(), reply=inbox)
                while len(found) < most:
                    answer = await self._answer(answers.next_msg(timeout=_ANSWER_S))
                    headers = answer.headers or {}
                    if "Nats-Sequence" in headers:
                        found.append(self._leased(of, headers, answer.data))
                    elif headers.get("Status") in {"204", "404"}:
                        break
                    else:
                        said = str(headers)[:100]
                        raise Unreachable(f"{self._where} reads no lease ({said})")
            finally:
                if client.is_connected:
                    await answers.unsubscribe()
        return found

    def _leased(self, of: str, headers: dict[str, str], said: bytes) -> Leased:
        # Who writes may give it headers: those of the server come after them, and count.
        before, _, by = headers["Nats-Subject"].rpartition(".")
        if before != f"{_SUBJECT}.{of}":
            raise Unreachable(f"{self._where} answers about another lease")
        return Leased(int(headers["Nats-Sequence"]), by, said[: ELECTION_BYTES_MAX + 1])

    async def write(self, of: str, said: bytes, above: int) -> int | None:
        """The revision of what was written; None where that was not the newest any more.

        Raises: Unreachable.
        """
        assert len(said) <= ELECTION_BYTES_MAX, "what is written is bounded where it is made"
        headers = {
            "Nats-Expected-Stream": STREAM,
            "Nats-Expected-Last-Subject-Sequence": str(above),
            "Nats-Expected-Last-Subject-Sequence-Subject": f"{_SUBJECT}.{of}.*",
        }
        async with self._reached() as client:
            subject = f"{_SUBJECT}.{of}.{self._me}"
            answer = await self._asked(client, subject, said, headers)
            if _code(answer) in _NOT_THE_LAST:
                return None
            revision = self._checked(answer).get("seq")
            if not isinstance(revision, int):
                raise Unreachable(f"{self._where} acknowledges a lease in no way that is known")
            return revision

    async def keep(self, machines: Iterable[str] = ("*",), *, change: bool = False) -> None:
        """Have the stream there, for the work of these machines; of one copy where there are no
        more servers. One that is there stays as it is, but where it is to `change`.

        Raises: Unreachable.
        """
        subjects = [f"{_SUBJECT}.{each}.*" for each in machines]
        async with self._reached() as client:
            for copies in (_COPIES, 1):
                made = _made(subjects, copies)
                answer = await self._asked(client, f"$JS.API.STREAM.CREATE.{STREAM}", made)
                if _code(answer) in EXISTS and change:
                    answer = await self._asked(client, f"$JS.API.STREAM.UPDATE.{STREAM}", made)
                if _code(answer) not in _NO_COPIES:
                    break
            if change or _code(answer) not in EXISTS:
                self._checked(answer)

    async def _asked(
        self, client: Any, subject: str, said: dict[str, Any] | bytes,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        raw = said if isinstance(said, bytes) else json.dumps(said).encode()
        asking = client.request(subject, raw, timeout=_ANSWER_S, headers=headers)
        answer = json.loads((await self._answer(asking)).data)
        if not isinstance(answer, dict):
            raise Unreachable(f"{self._where} answers about a lease what is no answer")
        return answer

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Raises: Unreachable, saying what the server said."""
        if "error" in answer:
            error = answer["error"]
            said = str(error.get("description", "") if isinstance(error, dict) else error)[:200]
            raise Unreachable(f"{self._where} refuses: {said}")
        return answer


def _made(subjects: list[str], copies: int) -> dict[str, Any]:
    return {
        "name": STREAM,
        "subjects": subjects,
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs": -1,
        "max_msgs_per_subject": 1,
        "max_bytes": _BYTES_MAX,
        "max_msg_size": ELECTION_BYTES_MAX + 1024,
        "max_age": 0,
        "max_consumers": -1,
        "allow_direct": True,
        "num_replicas": copies,
    }


def _code(answer: dict[str, Any]) -> int:
    error = answer.get("error")
    code = error.get("err_code") if isinstance(error, dict) else 0
    return code if isinstance(code, int) else 0
