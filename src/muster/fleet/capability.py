"""A capability: what one agent process may ask of its daemon, for one task.

Rule 1: the secret is in the environment of the agent process and nowhere else; entries and
tables hold its sha256.
Rule 2: it names its verbs. It cannot be widened, and it ends with the task or the time.
Rule 3: whoever reads the agent's environment has the capability; that is why it is small.

    muster-cap1.<task>.<64 hex digits of secret>
"""

import hashlib
import hmac
import re
from typing import Annotated, Final

from msgspec import Meta, Struct

from muster import limits
from muster.errors import Denied, Malformed
from muster.fleet.name import Hex32, Milliseconds, Word

_TOKEN: Final = re.compile(r"^muster-cap1\.([A-Za-z0-9_-]{1,128})\.([0-9a-f]{64})\Z")


class Capability(Struct, frozen=True, forbid_unknown_fields=True):
    """What is written down about a capability: everything but its secret."""

    agent: Word
    sha256: Hex32
    task: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}\Z")]
    until_ms: Milliseconds
    verbs: Annotated[tuple[Word, ...], Meta(max_length=limits.FLEET_LIST_MAX)]


def make_capability(
    secret: bytes, *, task: str, agent: str, verbs: tuple[str, ...], until_ms: int
) -> tuple[str, Capability]:
    """The token for the agent's environment, and what may be written down about it."""
    assert len(secret) == 32, "a capability's secret has 32 random bytes"
    token = f"muster-cap1.{task}.{secret.hex()}"
    read_token(token)
    return token, Capability(agent, _hash(secret), task, until_ms, tuple(sorted(set(verbs))))


def read_token(token: str) -> tuple[str, str]:
    """The task a token is for and the sha256 to look it up by; proves nothing yet."""
    match = _TOKEN.match(token)
    if match is None:
        # The token itself is never repeated in a message: messages end up in logs.
        raise Malformed("The capability is not one of ours: take it from $MUSTER_CAPABILITY.")
    return match[1], _hash(bytes.fromhex(match[2]))


def check_capability(capability: Capability, token: str, verb: str, now_ms: int) -> None:
    """Raises Denied unless `token` is this capability's and allows the verb now."""
    task, sha256 = read_token(token)
    if task != capability.task or not hmac.compare_digest(sha256, capability.sha256):
        raise Denied("The capability is of another task or another attempt.")
    if now_ms > capability.until_ms:
        raise Denied(f"The capability for task {task} has ended with its time.")
    if verb not in capability.verbs:
        raise Denied(f"The agent of task {task} may not {verb}: its capability does not name it.")


def _hash(secret: bytes) -> str:
    return hashlib.sha256(b"muster/capability/v1\n" + secret).hexdigest()
