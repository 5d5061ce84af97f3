"""One bucket of an object store that speaks S3: asked in signed requests, and trusted with nothing.

Rule 1: what answers is a stranger. Head, body, depth and time are bounded before anything of them
is read; a document type, and so an entity, is refused; a redirect is followed nowhere.
Rule 2: requests are signed (AWS Signature 4); the keys are in no error, no log and no address.
Rule 3: plain http goes to this machine and its private networks alone, whatever a name leads to:
the address counts that answered, before a byte is sent.
Rule 4: an error says who can mend it: Broken is the keys, the clock, the settings; Exhausted is a
full store; Silent and Unreachable pass.
"""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from muster.address import join_address
from muster.channel.s3_answer import (
    HEAD_BYTES_MAX,
    XML_BYTES_MAX,
    Answer,
    Connection,
    Listing,
    Rule,
    TooMuch,
    code_of,
    listing_of,
    rules_of,
)
from muster.errors import Broken, Exhausted, Malformed, MusterError, Silent, Unreachable

LISTED_MAX: Final = 1000
# Of keys so long that a thousand of them are more than is read.
_LISTED_FEW: Final = 100
# Chosen arbitrarily: the largest packet over a line of 512 kbit/s, with room.
REQUEST_S: Final = 30.0
_IDLE_MAX: Final = 4
# Stores refuse what is signed 15 minutes off, and not all of them say why.
_SKEW_S: Final = 840
_PLACE: Final = re.compile(
    r"(https?)://([^\s/?#@\\]{1,255})/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)/?"
)
_FULL: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage"})
PREFIX: Final = "muster"


class Keys(NamedTuple):
    """Who asks; it shows itself nowhere."""

    id: str
    secret: str
    token: str = ""

    def __repr__(self) -> str:
        return "Keys(…)"


class Where(NamedTuple):
    """`https://host[:port]/bucket[/prefix]`, taken apart."""

    tls: bool
    host: str
    port: int
    bucket: str
    prefix: str

    @property
    def address(self) -> str:
        usual = self.port == (443 if self.tls else 80)
        named = join_address(self.host, self.port)
        return named.rpartition(":")[0] if usual else named

    @property
    def name(self) -> str:
        """As a sentence names it."""
        return f"the bucket {self.bucket} of {self.address}"


def where(place: str) -> Where:
    """Raises: Malformed, in one sentence."""
    match, host, port = _PLACE.fullmatch(place[:1024]), None, None
    if match is not None:
        try:
            parts = urlsplit(f"//{match[2]}")
            host, port = parts.hostname, parts.port
            # What cannot be a name is refused here, and not by whoever looks it up.
            (host or "").encode("idna")
        except ValueError:
            host = None
    if match is None or not host or not re.fullmatch(r"[0-9a-z.:-]+", host) or port == 0:
        raise Malformed(
            f"{place[:80]!r} is no bucket: write https://host/bucket or https://host/bucket/prefix"
        )
    tls = match[1] == "https"
    prefix = match[4].strip("/") or PREFIX
    if len(prefix) > 256:
        raise Malformed("the prefix in a bucket has at most 256 letters")
    return Where(tls, host, port or (443 if tls else 80), match[3], prefix)


class Bucket:
    """See the rules at the top of this file. `keys` are asked for before each request."""

    def __init__(
        self,
        at: Where,
        region: str,
        keys: Callable[[], Keys],
        wall_ms: Callable[[], int],
        *,
        plain: bool,
    ) -> None:
        self.where, self._region, self._keys, self._wall_ms = at, region, keys, wall_ms
        self._plain = plain
        self._idle: list[Connection] = []
        self._context: ssl.SSLContext | None = None
        self._closed = False

    async def put(self, key: str, body: bytes, headers: Mapping[str, str] = {}) -> None:
        """Raises: Broken, Exhausted, Unreachable."""
        await self._ask("PUT", key, {}, body, headers)

    async def get(self, key: str, most: int) -> bytes | None:
        """What an object holds; None where there is none. Raises: Malformed (more), as `put`."""
        answer = await self._ask("GET", key, {}, most=most, none=True)
        return answer.body if answer.status == 200 else None

    async def delete(self, key: str) -> None:
        """Also of what is not there. Raises: as `put`."""
        await self._ask("DELETE", key, {}, none=True)

    async def list(self, under: str, after: str = "") -> Listing:
        """Objects whose keys begin so, the first of them after a key. Raises: as `put`."""
        # A key may hold what XML cannot.
        query = {"list-type": "2", "encoding-type": "url", "prefix": under}
        query |= {"start-after": after} if after else {}
        try:
            try:
                answer = await self._ask("GET", "", query | {"max-keys": str(LISTED_MAX)})
            except TooMuch:
                answer = await self._ask("GET", "", query | {"max-keys": str(_LISTED_FEW)})
            return listing_of(answer.body, under)
        except Malformed as error:
            raise self._odd(error) from error

    async def ask_lifecycle(self) -> Sequence[Rule] | None:
        """What removes old objects of this bucket; None where nothing does. Raises: as `put`."""
        answer = await self._ask("GET", "", {"lifecycle": ""}, none=True)
        try:
            return rules_of(answer.body) if answer.status == 200 else None
        except Malformed as error:
            raise self._odd(error) from error

    async def put_lifecycle(self, body: bytes) -> None:
        """Raises: as `put`."""
        md5 = hashlib.md5(body, usedforsecurity=False).digest()
        digest = {"content-md5": base64.b64encode(md5).decode()}
        await self._ask("PUT", "", {"lifecycle": ""}, body, digest)

    def close(self) -> None:
        """Idempotent."""
        self._closed = True
        self._hang_up()

    def _hang_up(self) -> None:
        while self._idle:
            self._idle.pop().abort()

    # --- one request ------------------------------------------------------------------

    async def _ask(
        self, method: str, key: str, query: Mapping[str, str], body: bytes = b"",
        headers: Mapping[str, str] = {}, *, most: int = XML_BYTES_MAX, none: bool = False,
    ) -> Answer:  # fmt: skip
        """The answer, where it is none of failure; `none`: that nothing is there is an answer."""
        raw = self._signed(method, key, query, body, headers)
        try:
            async with asyncio.timeout(REQUEST_S):
                answer = await self._exchanged(raw, most)
        except TimeoutError as error:
            # What rests was opened before it fell silent: each would be waited for as long.
            self._hang_up()
            raise Silent(f"{self.where.name} gave no answer within {REQUEST_S:g} s") from error
        except ssl.SSLCertVerificationError as error:
            why = error.verify_message
            raise Broken(f"{self.where.address} does not prove its name: {why}") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            why = getattr(error, "strerror", None) or "it hung up"
            raise Unreachable(f"{self.where.name} cannot be reached ({why})") from error
        except TooMuch:
            # Objects and their names may be anybody's; what else it says may not be so long.
            if method == "GET" and "lifecycle" not in query:
                raise
            raise self._odd(Malformed("it says too much")) from None
        except Malformed as error:
            raise self._odd(error) from error
        if answer.status in (200, 204):
            return answer
        failure = self._failure(answer)
        if failure is None and none:
            return answer
        raise failure or Broken(f"{self.where.name} does not know what was asked of it (404)")

    async def _exchanged(self, raw: bytes, most: int) -> Answer:
        while True:
            rests = bool(self._idle)
            connection = self._idle.pop() if rests else await self._open()
            keeps = False
            try:
                answer, keeps = await connection.exchange(raw, most)
                return answer
            except (ConnectionError, asyncio.IncompleteReadError):
                # A store hangs up on what rests; nothing here does more when it is done twice.
                if not rests:
                    raise
            finally:
                if keeps and not self._closed and len(self._idle) < _IDLE_MAX:
                    self._idle.append(connection)
                else:
                    connection.abort()

    async def _open(self) -> "Connection":
        at = self.where
        if at.tls and self._context is None:
            self._context = await asyncio.to_thread(ssl.create_default_context)
        reader, writer = await asyncio.open_connection(
            at.host, at.port, ssl=self._context, limit=HEAD_BYTES_MAX
        )
        connection = Connection(reader, writer)
        if not (at.tls or self._plain or _is_near(writer.get_extra_info("peername"))):
            connection.abort()
            raise Broken(
                f"{at.address} is no private address, and http:// would show everybody who asks "
                "it for what: write https://, or `channel.cloud.plain = true`"
            )
        return connection

    def _odd(self, error: Malformed) -> Broken:
        return Broken(f"what answers at {self.where.address} is no object store: {error}")

    def _failure(self, answer: Answer) -> MusterError | None:
        """Why it was refused, by whose fault; None where there is no such object."""
        status, name = answer.status, self.where.name
        code = code_of(answer.body)
        said = f"{status} {code}".strip()
        off_s = self._off_s(answer)
        if status in (400, 401, 403):
            if code == "RequestTimeTooSkewed" or abs(off_s) > _SKEW_S:
                side = "ahead" if off_s > 0 else "behind"
                off = f"{abs(off_s)} s {side}" if off_s else "wrong"
                return Broken(
                    f"{name} refuses what is signed by a wrong clock (RequestTimeTooSkewed): this "
                    f"machine's is {off}; set it"
                )
            if code in _FULL:
                return Exhausted(f"{name} is full ({said})")
            return Broken(
                f"{name} refuses this machine ({said}): mend cloud.env, or what its key may do"
            )
        if status == 404:
            if code != "NoSuchBucket":
                return None
            return Broken(
                f"there is no bucket {self.where.bucket} at {self.where.address}: make it"
            )
        if status == 507 or code in _FULL:
            return Exhausted(f"{name} is full ({said})")
        if 300 <= status < 400:
            return Broken(
                f"{name} is elsewhere ({said}), and nothing is followed: write its own host and "
                "region"
            )
        if status in (408, 429) or (status >= 500 and status != 501):
            return Unreachable(f"{name} does not work now ({said})")
        return Broken(f"{name} does not do what was asked of it ({said})")

    def _off_s(self, answer: Answer) -> int:
        """How far this machine's clock is ahead of the one that answered; 0 where nobody knows."""
        try:
            there_s = parsedate_to_datetime(answer.head.get("date", "")[:64]).timestamp()
        except (ValueError, TypeError, OverflowError):
            # It says no date; then its clock decides nothing.
            return 0
        return round(self._wall_ms() / 1000 - there_s)

    def _signed(
        self, method: str, key: str, query: Mapping[str, str], body: bytes, more: Mapping[str, str]
    ) -> bytes:
        keys, at = self._keys(), self.where
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._wall_ms() / 1000))
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": at.address, "x-amz-content-sha256": digest, "x-amz-date": stamp, **more}
        if keys.token:
            headers["x-amz-security-token"] = keys.token
        headers = dict(sorted(headers.items()))
        path = f"/{at.bucket}/{key}".removesuffix("/")
        asked = "&".join(
            f"{name}={quote(text, safe='-_.~')}" for name, text in sorted(query.items())
        )
        lines = "".join(f"{name}:{text}\n" for name, text in headers.items())
        names = ";".join(headers)
        request = f"{method}\n{path}\n{asked}\n{lines}\n{names}\n{digest}"
        scope = f"{stamp[:8]}/{self._region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        proof = f"AWS4{keys.secret}".encode()
        for word in (*scope.split("/"), text):
            proof = hmac.digest(proof, word.encode(), "sha256")
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={keys.id}/{scope}, SignedHeaders={names}, "
            f"Signature={proof.hex()}"
        )
        headers["content-length"] = str(len(body))
        head = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
        target = f"{path}?{asked}" if asked else path
        return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body


def _is_near(peer: object) -> bool:
    """Whether who answered is this machine or in a private network."""
    try:
        found = ipaddress.ip_address(
            str(peer[0]).partition("%")[0] if isinstance(peer, tuple) else ""
        )
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return not found.is_global and not found.is_multicast and not found.is_unspecified
