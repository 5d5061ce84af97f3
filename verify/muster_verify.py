"""Check an export of a Muster fleet, without Muster: muster_verify.py DIRECTORY [--fleet ID]

Needs nothing but Python 3.9; with the cryptography library it is faster. Exit 0: what the export
claims holds. Exit 1: each line names what is wrong. Exit 2: nothing can be read.

Exit 0 means: since another machine cosigned a stream at some size, nobody, its writer and owner
included, changed, removed, reordered or backdated an entry below it. Above it (the exposure
window) the writing machine alone is trusted. Compare the fleet id with yours, or pass --fleet.
"""

import argparse
import functools
import hashlib
import json
import re
import sys
import time
from base64 import b64decode
from collections import namedtuple
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

Ed25519PublicKey: Any = None
with suppress(ImportError):
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HEX32, HEX64 = "[0-9a-f]{32}", "[0-9a-f]{64}"
STREAM = rf"{HEX64}/{HEX32}/(?:fleet|journal|to\.{HEX64}|g\.{HEX64}\.[a-z0-9-]{{1,32}})"
# Base64 has one spelling only where the spare bits of its last letter are zero.
B64, LAST4 = "[A-Za-z0-9+/]", "[AEIMQUYcgkosw048]"
NOTE = re.compile(
    rf"(?P<text>muster/(?P<fleet>{HEX64})/(?P<stream>{STREAM})\n"
    rf"(?P<size>0|[1-9][0-9]{{0,12}})\n(?P<root>(?:{B64}{{4}}){{10}}{B64}{{2}}{LAST4}=)\n)"
    rf"\n— (?P<name>\S+) (?P<data>(?:{B64}{{4}})+(?:{B64}[AQgw]==|{B64}{{2}}{LAST4}=)?)\n"
)
DOCUMENT = re.compile(rf"([a-z/0-9]+\n([^\n]*))\n({HEX64}{HEX64})\n")
INT_MAX, SIZE_MAX, LINE_MAX, FUTURE_S_MAX = 2**53 - 1, 2**40, 1 << 20, 600
# What a field must be: a pattern, a type, a condition, or fields of its own.
Rules, Point, NONE = dict[str, Any], tuple[int, int, int, int], type(None)
HEADER: Rules = {
    "actor": r"(?=.{1,128}\Z)(?:muster|op:[A-Za-z0-9._-]+|[A-Za-z0-9._:/-]+@[A-Za-z0-9._-]+)",
    "author": HEX64,
    "body": {"sha256": HEX64, "size": lambda v: is_int(v, 65536)},
    "cause": lambda v: isinstance(v, list) and len(v) <= 16 and all(matches(HEX64, e) for e in v),
    "kind": r"(?=.{1,64}\Z)[a-z]+(?:\.[a-z-]+)+",
    "seq": lambda v: is_int(v, SIZE_MAX),
    "stream": STREAM,
    "t": lambda v: isinstance(v, list) and [is_int(n, INT_MAX) for n in v] == [True, True],
    "v": lambda v: is_int(v, 1) and v == 1,
}
LINE: Rules = {"body": (str, dict, NONE), "header": str, "salt": (str, NONE)}
LISTED: Rules = {"file": "0|[1-9][0-9]*", "root": HEX64, "size": HEADER["seq"], "stream": STREAM}
MANIFEST: Rules = {"closed": bool, "fleet": HEX64, "records": list, "revocations": list}
MANIFEST |= {"streams": list, "v": HEADER["v"]}
# The curve of Ed25519: its field, the order of its base point, and two constants.
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D, ROOT = -121665 * pow(121666, P - 2, P) % P, pow(2, P // 4, P)
# What a key of each purpose signs first, and the type in its key id.
STATEMENTS = {
    "seal": ("", b"\x01"),
    "seen": ("cosignature/v1", b"\x04"),
    "held": ("muster-held/v1", b"\xffmuster-held/v1"),
}
# A stream's size and root, as a key of some machine signed it.
Head = namedtuple("Head", "machine purpose size root time_s")  # noqa: PYI024 - kept short
# Which field of an entry's body passes on a document that counts for its own signature.
PASSED = {"machine.open": "record", "machine.record": "record", "machine.revoke": "revocation"}


class Wrong(Exception): ...


def need(condition: bool, what: str) -> None:
    if not condition:
        raise Wrong(what)


def matches(rule: Any, value: Any) -> bool:
    if isinstance(rule, str):
        return isinstance(value, str) and re.fullmatch(rule, value) is not None
    return isinstance(value, rule) if isinstance(rule, (type, tuple)) else bool(rule(value))


def is_int(value: Any, high: int) -> bool:
    return type(value) is int and 0 <= value <= high


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def point(raw: bytes) -> Point:
    """Return a point of edwards25519 from its only spelling (RFC 8032, 5.1.3)."""
    odd, y = divmod(int.from_bytes(raw, "little"), 2**255)
    u, v = y * y - 1, D * y * y + 1
    x = u * v**3 * pow(u * v**7, P // 8, P) % P
    x = x if (v * x * x - u) % P == 0 else x * ROOT % P
    need(len(raw) == 32 and y < P and (v * x * x - u) % P == 0 and x >= odd, "a key is no point")
    x = x if x & 1 == odd else P - x
    return x, y, 1, x * y


def add(one: Point, other: Point) -> Point:
    a, b = (one[1] - one[0]) * (other[1] - other[0]), (one[1] + one[0]) * (other[1] + other[0])
    c, d = 2 * D * one[3] * other[3], 2 * one[2] * other[2]
    e, f, g, h = (b - a) % P, (d - c) % P, (d + c) % P, (b + a) % P
    return e * f % P, g * h % P, f * g % P, e * h % P


def signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """RFC 8032, 5.1.7: by a library where there is one; no second spelling holds."""
    if Ed25519PublicKey is not None:
        with suppress(InvalidSignature, ValueError):
            return Ed25519PublicKey.from_public_bytes(public).verify(signature, message) is None
        return False
    half, s, (x, y, z, t) = signature[:32], int.from_bytes(signature[32:], "little"), point(public)
    k = int.from_bytes(hashlib.sha512(half + public + message).digest(), "little") % L
    base, key, found = point(b"\x58" + b"\x66" * 31), (-x, y, z, -t), (0, 1, 1, 0)
    for bit in range(252, -1, -1):
        found = add(found, found)
        found = add(found, base) if s >> bit & 1 else found
        found = add(found, key) if k >> bit & 1 else found
    x, y = (each * pow(found[2], P - 2, P) % P for each in found[:2])
    return len(signature) == 64 and s < L and half == (y | (x & 1) << 255).to_bytes(32, "little")


def canonical(raw: bytes, what: str) -> Any:
    try:
        text = raw.decode("utf-8")
        # Written back, a float or a NaN is null: no longer what was read.
        value = json.loads(text, parse_float=lambda _: None, parse_constant=lambda _: None)
        again = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise Wrong(f"{what} is not JSON ({error})") from None
    need(again == text, f"{what} is not canonical JSON")
    return value


def fields(value: Any, rules: Rules, what: str) -> Any:
    need(isinstance(value, dict) and set(value) == set(rules), f"{what} has other fields")
    for name, rule in rules.items():
        if isinstance(rule, dict):
            fields(value[name], rule, f"the {name} of {what}")
        else:
            need(matches(rule, value[name]), f"the field {name} of {what} is malformed")
    return value


def check_body(salt: Any, body: Any, named: dict[str, Any]) -> bool:
    if body is None:
        need(salt is None, "the body is gone but its salt is not")
        return False
    need(matches(HEX32, salt), "the body has no salt")
    odd = isinstance(body, dict)
    text = fields(body, {"hex": "(?:[0-9a-f]{2})*"}, "the body")["hex"] if odd else body
    raw = bytes.fromhex(text) if odd else text.encode("utf-8", "replace")
    same = len(raw) == named["size"] and sha256(bytes.fromhex(salt), raw).hex() == named["sha256"]
    need(same, "the body is not the one that the header names")
    need(not odd or raw.decode("utf-8", "replace").encode() != raw, "the body is text, put in hex")
    return True


class Stream:
    """The entries of one stream, and the RFC 6962 roots at the sizes that somebody signed."""

    def __init__(self, name: str) -> None:
        self.name, self.size, self.vouched, self.withheld = name, 0, 0, 0
        # Roots of the complete subtrees, widest first; and roots of the whole, by size.
        self.subtrees, self.roots = list[bytes](), {0: sha256()}
        self.ids, self.causes = list[str](), list[tuple[int, str]]()

    def root(self) -> bytes:
        found = self.subtrees[::-1] or [sha256()]
        return functools.reduce(lambda right, left: sha256(b"\x01", left, right), found)

    def read(self, raw: bytes, sizes: set[int]) -> None:
        lines, last = raw.split(b"\n"), [-1, 0]
        need(lines.pop() == b"", "the last line is cut")
        for line in lines:
            try:
                last = self._entry(line, last)
            except Wrong as error:
                # Every later root would be wrong too: one name for one mistake.
                raise Wrong(f"seq {self.size}: {error}") from None
            if self.size in sizes:
                self.roots[self.size] = self.root()

    def _entry(self, raw: bytes, last: list[int]) -> list[int]:
        need(len(raw) <= LINE_MAX, "the line is too long")
        line = fields(canonical(raw, "the line"), LINE, "the line")
        raw = line["header"].encode("utf-8", "replace")
        need(len(raw) <= 4096, "the header is too long")
        header = fields(canonical(raw, "the header"), HEADER, "the header")
        for name, its in ("seq", self.size), ("stream", self.name), ("author", self.name[:64]):
            need(header[name] == its, f"the header says {name} {header[name]}")
        self.withheld += not check_body(line["salt"], line["body"], header["body"])
        need(header["t"] > last, "the time is not later than that of the entry before")
        node = sha256(b"\x00", raw)
        self.ids.append(node.hex())
        self.causes += [(self.size, each) for each in header["cause"]]
        bits, self.size = self.size, self.size + 1
        while bits & 1:
            node, bits = sha256(b"\x01", self.subtrees.pop(), node), bits >> 1
        self.subtrees.append(node)
        return list(header["t"])


class Export:
    def __init__(self, files: dict[str, bytes], now_s: int) -> None:
        self.files, self.now_s, self.wrong = files, now_s, list[str]()
        self.machines, self.revoked = dict[str, Any](), dict[str, dict[str, int]]()
        raw = files.get("manifest.json", b"")
        need(raw.endswith(b"\n"), "manifest.json is missing or cut")
        found = fields(canonical(raw[:-1], "manifest.json"), MANIFEST, "manifest.json")
        items = [fields(each, LISTED, "a stream in manifest.json") for each in found["streams"]]
        names = [each["file"] + end for each in items for end in (".jsonl", ".seals", ".cosigns")]
        twice = len({each["stream"] for each in items}) < len(items) or len(set(names)) < len(names)
        need(not twice, "manifest.json names a stream or file twice")
        for name in sorted({"manifest.json", *names} ^ set(files)):
            fault = "missing" if name in names else "not in the manifest"
            raise Wrong(f"the file {name!a} is {fault}")
        self.manifest, self.fleet = found, found["fleet"]

    def document(self, text: Any, kind: str, key: Any) -> Any:
        found = DOCUMENT.fullmatch(text) if isinstance(text, str) else None
        need(found is not None and text.startswith(f"{kind}\n"), f"this is not a {kind} document")
        body = canonical(found[2].encode(), kind)
        ours = isinstance(body, dict) and body.get("fleet") == self.fleet
        need(ours, f"{kind} is of another fleet")
        public = key or body.get("machine")
        need(matches(HEX64, public), f"{kind} names no machine")
        holds = signed(bytes.fromhex(public), found[1].encode(), bytes.fromhex(found[3]))
        need(holds, f"{kind} is not signed by {public[:12]}…")
        return body

    def learn_record(self, text: Any) -> bool:
        record = self.document(text, "muster/record/v1", self.fleet)
        binding = self.document(record.get("binding"), "muster/binding/v1", None)
        serial, machine, keys = record.get("serial"), binding["machine"], binding.get("keys")
        usable = isinstance(keys, dict) and all(matches(HEX64, each) for each in keys.values())
        usable = usable and set(STATEMENTS) <= set(keys) and is_int(serial, INT_MAX)
        need(usable, "a machine record has no serial or lacks a key")
        need(len({*keys.values(), machine}) == len(keys) + 1, "a machine record reuses a key")
        news = {"serial": serial, **{each: bytes.fromhex(keys[each]) for each in STATEMENTS}}
        if serial > self.machines.get(machine, {"serial": -1})["serial"]:
            self.machines[machine] = news
        return self.machines[machine] is news

    def learn_revocation(self, text: Any) -> bool:
        body = self.document(text, "muster/revocation/v1", self.fleet)
        key, cuts = body.get("key"), body.get("cuts")
        need(matches(HEX64, key) and isinstance(cuts, dict), "a revocation has no key or cuts")
        for stream, size in cuts.items():
            ours = matches(STREAM, stream) and stream[:64] == key and is_int(size, INT_MAX)
            need(ours, "a revocation cuts a foreign stream, or at no size")
        known = self.revoked.get(key)
        before = cuts if known is None else known
        self.revoked[key] = {each: min(cuts[each], before.get(each, 0)) for each in cuts}
        return self.revoked[key] != known

    def learn(self) -> None:
        """Read the manifest's documents, and those that entries pass on: it must have them all."""
        learn = {"record": self.learn_record, "revocation": self.learn_revocation}
        for name, take in learn.items():
            for text in self.manifest[name + "s"]:
                take(text)
        for item in self.manifest["streams"]:
            lines = self.files[item["file"] + ".jsonl"].split(b"\n")
            for n, raw in enumerate(lines if item["stream"].endswith("/fleet") else ()):
                try:
                    line = json.loads(raw) if b"machine." in raw else {}
                    name = PASSED[json.loads(line["header"])["kind"]]
                    text = line["body"] and json.loads(line["body"])[name]
                    listed = text in self.manifest[name + "s"]
                    odd = not listed and (text is None or learn[name](text))
                except (Wrong, LookupError, TypeError, ValueError, RecursionError):
                    continue  # What does not hold counts for nothing.
                why = "is withheld" if text is None else "is not in manifest.json"
                self.wrong += [f"stream {item['stream']}: seq {n}: its {name} {why}"] * odd

    def read_heads(self, stream: str, file: str) -> Iterator[Head]:
        lines = self.files[file].decode("utf-8", "replace").split("\n")
        need(lines.pop() == "" and len(lines) % 5 == 0, f"{file} is cut or has extra lines")
        for at in range(0, len(lines), 5):
            place = f"{file}, note {at // 5}"
            found = NOTE.fullmatch("\n".join(lines[at : at + 5]) + "\n")
            need(found is not None, f"{place} is not a checkpoint in canonical base64")
            ours = (found["fleet"], found["stream"]) == (self.fleet, stream)
            need(ours, f"{place} is of another fleet or stream")
            sealed, name = file.endswith(".seals"), found["name"]
            machine = stream[:64] if sealed else name[len("muster/") :]
            right = name == f"muster/{f'{self.fleet}/{stream}' if sealed else machine}"
            fault = "has another key name" if sealed else f"is by {name!a}, no machine of the fleet"
            need(right and machine in self.machines, f"{place} {fault}")
            yield self.head(found, machine, ["seal"] if sealed else ["seen", "held"], place)

    def head(self, found: re.Match[str], machine: str, purposes: list[str], place: str) -> Head:
        data, name = b64decode(found["data"]), found["name"].encode()
        for purpose in purposes:
            (first_line, kind), public = STATEMENTS[purpose], self.machines[machine][purpose]
            if data[:4] != sha256(name, b"\n", kind, public)[:4]:
                continue
            timed = 8 if first_line else 0
            moment = int.from_bytes(data[4 : 4 + timed], "big")
            statement = f"{first_line}\ntime {moment}\n{found['text']}" if timed else found["text"]
            holds = signed(public, statement.encode(), data[4 + timed :])
            need(holds, f"{place}: the signature does not hold")
            return Head(machine, purpose, int(found["size"]), b64decode(found["root"]), moment)
        raise Wrong(f"{place} is signed by another key")

    def check_heads(self, stream: Stream, heads: list[Head], whole: bool) -> Iterator[str]:
        first, last = dict[int, Head](), dict[tuple[str, str], int]()
        for head in sorted(heads, key=lambda each: each.size):
            who, size = f"the {head.purpose} of {head.machine}", head.size
            other = first.setdefault(size, head)
            if other.root != head.root:
                yield f"FORK: {who} and the {other.purpose} of {other.machine} differ at {size}"
            elif whole and size > stream.size:
                yield f"seq {stream.size}: missing, though {who} is over {size} entries"
            elif whole and stream.roots[size] != head.root:
                yield f"the entries below seq {size} are not those of {who}"
            if head.time_s > self.now_s + FUTURE_S_MAX:
                yield f"{who} at {size} is from the future"
            if head.time_s < last.get((head.machine, head.purpose), 0):
                yield f"{who} at {size} is older than the one at a smaller size"
            last[head.machine, head.purpose] = head.time_s

    def check_stream(self, stream: Stream, item: Any) -> Iterator[str]:
        file, owner, heads, whole = item["file"], stream.name[:64], list[Head](), False
        try:
            need(owner in self.machines, f"there is no machine record of {owner}")
            for end in ("seals", "cosigns"):
                heads += self.read_heads(stream.name, f"{file}.{end}")
            stream.read(self.files[f"{file}.jsonl"], {head.size for head in heads})
            whole = True
            same = item["size"] == stream.size and item["root"] == stream.root().hex()
            need(same, f"its {stream.size} entries have another size or root than manifest.json")
        except Wrong as error:
            yield str(error)
        yield from self.check_heads(stream, heads, whole)
        sealed = max((head.size for head in heads if head.purpose == "seal"), default=0)
        if whole and sealed < stream.size:
            yield f"seq {sealed}: no seal of its writer covers it and what follows"
        cut = self.revoked[owner].get(stream.name, 0) if owner in self.revoked else stream.size
        if stream.size > cut:
            yield f"seq {cut}: from here on nothing counts, its machine is revoked"
        # A revoked key may sign anything, so what it vouches for vouches for nothing.
        others = [head.size for head in heads if head.machine not in {owner, *self.revoked}]
        stream.vouched = min(max(others, default=0), stream.size)


def verify_export(files: dict[str, bytes], fleet: Any, now_s: int) -> Any:
    """Check an export, given as file name -> bytes; return what is wrong, and the summary."""
    try:
        export = Export(files, now_s)
        ours = export.fleet
        need(fleet in {None, ours}, f"this is an export of the fleet {ours}, not of {fleet}")
        export.learn()
    except Wrong as error:
        return [f"export: {error}"], []
    wrong, items = export.wrong, export.manifest["streams"]
    streams = [Stream(item["stream"]) for item in items]
    for stream, item in zip(streams, items):  # noqa: B905 - Python 3.9 has no strict
        wrong += [f"stream {stream.name}: {each}" for each in export.check_stream(stream, item)]
    known = {each for stream in streams for each in stream.ids}
    outside = [(s.name, *each) for s in streams for each in s.causes if each[1] not in known]
    if export.manifest["closed"] and not wrong:
        wrong = [f"stream {s}: seq {n}: its cause {e} is not in the export" for s, n, e in outside]
    exposed = [stream for stream in streams if stream.vouched < stream.size]
    count = sum(stream.size - stream.vouched for stream in exposed)
    return wrong, [
        f"fleet {ours} (is it yours?): {len(export.machines)} machines, {len(streams)} streams",
        f"{sum(stream.size for stream in streams)} entries hold",
        f"{sum(s.withheld for s in streams)} of them are without their body (erased or withheld)",
        f"{len(outside)} causes lie outside of this export",
        f"exposure window: {count} entries that no other machine has cosigned",
        *(f"  {each.name}: seq {each.vouched} to {each.size - 1}" for each in exposed),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Check an export of a Muster fleet.")
    parser.add_argument("directory")
    parser.add_argument("--fleet", help="the id of the fleet you trust")
    arguments = parser.parse_args()
    try:
        files = {each.name: each.read_bytes() for each in Path(arguments.directory).iterdir()}
    except OSError as error:
        parser.error(f"cannot read the export: {error}")
    wrong, lines = verify_export(files, arguments.fleet, int(time.time()))  # noqa: TID251 - a program
    faults = [*(f"WRONG {each}" for each in wrong), f"{len(wrong)} findings: it does not hold"]
    print("\n".join(faults if wrong else lines))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
