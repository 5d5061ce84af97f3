"""Check an export of a Muster fleet, without Muster: muster_verify.py DIRECTORY [--fleet ID]

Needs Python 3.9 and PyNaCl or cryptography; the formats are those of docs/spec/log.md. Exit 0:
what the export claims holds. Exit 1: each line names what is wrong. Exit 2: nothing can be read.

Exit 0 means: since another machine cosigned a stream at some size, nobody, its writer and owner
included, changed, removed, reordered or backdated an entry below it. Above it (the exposure
window) the writing machine alone is trusted. Compare the fleet id with yours, or pass --fleet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from base64 import b64decode, b64encode
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    from nacl.exceptions import BadSignatureError as BadSignature
    from nacl.signing import VerifyKey
except ImportError:
    from cryptography.exceptions import InvalidSignature as BadSignature  # type: ignore[assignment]
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    VerifyKey = None  # type: ignore[assignment, misc]

HEX32, HEX64 = "[0-9a-f]{32}", "[0-9a-f]{64}"
STREAM = rf"{HEX64}/{HEX32}/(?:fleet|journal|to\.{HEX64}|g\.{HEX64}\.[a-z0-9-]{{1,32}})"
NOTE = re.compile(
    rf"(?P<text>muster/(?P<fleet>{HEX64})/(?P<stream>{STREAM})\n"
    r"(?P<size>0|[1-9][0-9]{0,12})\n(?P<root>[A-Za-z0-9+/]{43}=)\n)"
    r"\n— (?P<name>\S+) (?P<data>[A-Za-z0-9+/]+={0,2})\n"
)
DOCUMENT = re.compile(rf"([a-z/0-9]+\n([^\n]*))\n({HEX64}{HEX64})\n")
INT_MAX, SIZE_MAX, LINE_MAX, FUTURE_S_MAX = 2**53 - 1, 2**40, 1 << 20, 600
# What a field must be: a pattern, a condition, or fields of its own.
Rules = dict[str, Any]
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
LINE: Rules = {
    "body": lambda v: v is None or isinstance(v, (str, dict)),
    "header": lambda v: isinstance(v, str),
    "salt": lambda v: v is None or matches(HEX32, v),
}
LISTED: Rules = {"file": "0|[1-9][0-9]*", "root": HEX64, "size": HEADER["seq"], "stream": STREAM}
MANIFEST: Rules = {
    "closed": lambda v: isinstance(v, bool),
    "fleet": HEX64,
    **dict.fromkeys(("records", "revocations", "streams"), lambda v: isinstance(v, list)),
    "v": HEADER["v"],
}
# What a key of each purpose signs first, and the type in its key id.
STATEMENTS = {
    "seal": ("", b"\x01"),
    "seen": ("cosignature/v1", b"\x04"),
    "held": ("muster-held/v1", b"\xffmuster-held/v1"),
}


class Wrong(Exception):
    """Something in the export does not hold."""


# A stream's size and root, as a key of some machine signed it.
Head = namedtuple("Head", "machine purpose size root time_s")  # noqa: PYI024 - kept short
# Whose signatures count: the machines' keys, and how much of a revoked key's streams.
Trust = namedtuple("Trust", "fleet machines revoked now_s")  # noqa: PYI024 - kept short


def need(condition: bool, what: str) -> None:
    if not condition:
        raise Wrong(what)


def matches(pattern: str, value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def is_int(value: Any, high: int) -> bool:
    return type(value) is int and 0 <= value <= high


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def signed(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        if VerifyKey is not None:
            VerifyKey(public).verify(message, signature)
        else:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (BadSignature, ValueError):
        return False
    return True


def canonical(raw: bytes, what: str) -> Any:
    """Return the value of JSON bytes, which must be its only spelling."""
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
    """Return `value` when it has exactly the fields of `rules`, each as its rule wants it."""
    need(isinstance(value, dict) and set(value) == set(rules), f"{what} has other fields")
    for name, rule in rules.items():
        if isinstance(rule, dict):
            fields(value[name], rule, f"the {name} of {what}")
        else:
            fits = rule(value[name]) if callable(rule) else matches(rule, value[name])
            need(fits, f"the field {name} of {what} is malformed")
    return value


def document(text: Any, kind: str, what: str, fleet: str, key: str | None) -> Any:
    """Return the contents of a document signed by `key`, or by the machine that it names."""
    found = DOCUMENT.fullmatch(text) if isinstance(text, str) else None
    need(found is not None and text.startswith(kind + "\n"), f"{what} is not a {kind} document")
    body = canonical(found[2].encode(), what)
    need(isinstance(body, dict) and body.get("fleet") == fleet, f"{what} is of another fleet")
    public = key or body.get("machine")
    need(matches(HEX64, public), f"{what} names no machine")
    holds = signed(bytes.fromhex(public), found[1].encode(), bytes.fromhex(found[3]))
    need(holds, f"{what} is not signed by {public[:12]}…")
    return body


def machine_record(text: Any, fleet: str) -> tuple[str, dict[str, Any]]:
    """Return the machine of a record that both the fleet and the machine signed."""
    record = document(text, "muster/record/v1", "a machine record", fleet, fleet)
    what = "the binding in a machine record"
    binding = document(record.get("binding"), "muster/binding/v1", what, fleet, None)
    serial, name, keys = record.get("serial"), binding.get("name"), binding.get("keys")
    need(is_int(serial, INT_MAX) and isinstance(name, str), f"{what} has no serial or name")
    usable = isinstance(keys, dict) and all(matches(HEX64, each) for each in keys.values())
    need(usable and set(STATEMENTS) <= set(keys), f"{what} lacks a key")
    need(len({*keys.values(), binding["machine"]}) == len(keys) + 1, f"{what} reuses a key")
    public = {purpose: bytes.fromhex(keys[purpose]) for purpose in STATEMENTS}
    return binding["machine"], {"serial": serial, "name": name, **public}


def revocation(text: Any, fleet: str) -> tuple[str, dict[str, int]]:
    """Return the revoked key, and how many entries of each of its streams still count."""
    body = document(text, "muster/revocation/v1", "a revocation", fleet, fleet)
    key, cuts = body.get("key"), body.get("cuts")
    need(matches(HEX64, key) and isinstance(cuts, dict), "a revocation has no key or cuts")
    for stream, size in cuts.items():
        need(matches(STREAM, stream) and stream[:64] == key, "a revocation cuts a foreign stream")
        need(is_int(size, INT_MAX), "a revocation has a cut that is no size")
    return str(key), cuts


def read_heads(raw: bytes, stream: str, trust: Trust, what: str) -> list[Head]:
    """Return the heads in a file of seals or cosigns, every signature checked."""
    lines = raw.decode("utf-8", "replace").split("\n")
    need(lines.pop() == "" and len(lines) % 5 == 0, f"{what} is cut or has extra lines")
    heads = []
    for at in range(0, len(lines), 5):
        place = f"{what}, note {at // 5}"
        found = NOTE.fullmatch("\n".join(lines[at : at + 5]) + "\n")
        need(found is not None, f"{place} is not a checkpoint with one signature")
        ours = (found["fleet"], found["stream"]) == (trust.fleet, stream)
        need(ours, f"{place} is of another fleet or stream")
        for each in (found["root"], found["data"]):
            only = len(each) % 4 == 0 and b64encode(b64decode(each)).decode() == each
            need(only, f"{place} is not in canonical base64")
        if what.endswith(".seals"):
            need(found["name"] == f"muster/{trust.fleet}/{stream}", f"{place} has another key name")
            machine, purposes = stream[:64], ["seal"]
        else:
            brand, _, machine = found["name"].partition("/")
            ours, purposes = brand == "muster" and machine in trust.machines, ["seen", "held"]
            need(ours, f"{place} is by {found['name']!a}, no machine of the fleet")
        keys = {purpose: trust.machines[machine][purpose] for purpose in purposes}
        heads.append(check_note(found, machine, keys, place))
    return heads


def check_note(found: re.Match[str], machine: str, keys: dict[str, bytes], place: str) -> Head:
    """Return the head in a note, when it is signed by one of these keys of `machine`."""
    data, name = b64decode(found["data"]), found["name"].encode()
    for purpose, public in keys.items():
        first_line, kind = STATEMENTS[purpose]
        if data[:4] != sha256(name, b"\n", kind, public)[:4]:
            continue
        timed = 8 if first_line else 0
        moment = int.from_bytes(data[4 : 4 + timed], "big")
        statement = f"{first_line}\ntime {moment}\n{found['text']}" if timed else found["text"]
        holds = signed(public, statement.encode(), data[4 + timed :])
        need(holds, f"{place}: the signature does not hold")
        return Head(machine, purpose, int(found["size"]), b64decode(found["root"]), moment)
    raise Wrong(f"{place} is signed by another key")


def check_body(salt: Any, body: Any, named: dict[str, Any]) -> bool:
    """Return whether the body is here; it must then be the one that the header names."""
    if body is None:
        need(salt is None, "the body is gone but its salt is not")
        return False
    need(salt is not None, "the body has no salt")
    odd = isinstance(body, dict)
    text = fields(body, {"hex": "(?:[0-9a-f]{2})*"}, "the body")["hex"] if odd else body
    raw = bytes.fromhex(text) if odd else text.encode("utf-8", "replace")
    same = len(raw) == named["size"] and sha256(bytes.fromhex(salt), raw).hex() == named["sha256"]
    need(same, "the body is not the one that the header names")
    return True


class Stream:
    """The entries of one stream, and the RFC 6962 roots at the sizes that somebody signed."""

    def __init__(self, name: str) -> None:
        self.name, self.size, self.vouched, self.withheld = name, 0, 0, 0
        self.subtrees: list[bytes] = []  # Roots of the complete subtrees, widest first.
        self.roots = {0: sha256()}
        self.ids: list[str] = []
        self.causes: list[tuple[int, str]] = []

    def root(self) -> bytes:
        node = self.subtrees[-1] if self.subtrees else sha256()
        for left in reversed(self.subtrees[:-1]):
            node = sha256(b"\x01", left, node)
        return node

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
        wanted = {"seq": self.size, "stream": self.name, "author": self.name[:64]}
        for name, its in wanted.items():
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


def check_heads(stream: Stream, heads: list[Head], whole: bool, now_s: int) -> Iterator[str]:
    """Yield what is wrong between the signed heads, and between them and the entries."""
    first: dict[int, Head] = {}
    last: dict[tuple[str, str], int] = {}
    for head in sorted(heads, key=lambda each: each.size):
        who, size = f"the {head.purpose} of {head.machine}", head.size
        other = first.setdefault(size, head)
        if other.root != head.root:
            also = f"the {other.purpose} of {other.machine}"
            yield f"FORK: {who} and {also} have different roots at size {size}"
        elif whole and size > stream.size:
            yield f"seq {stream.size}: missing, though {who} is over {size} entries"
        elif whole and stream.roots[size] != head.root:
            yield f"the entries below seq {size} are not those of {who}"
        if head.time_s > now_s + FUTURE_S_MAX:
            yield f"{who} at {size} is from the future"
        if head.time_s < last.get((head.machine, head.purpose), 0):
            yield f"{who} at {size} is older than the one at a smaller size"
        last[head.machine, head.purpose] = head.time_s


def check_stream(stream: Stream, item: Any, files: dict[str, bytes], trust: Trust) -> Iterator[str]:
    """Yield what is wrong with one stream of the manifest; fill in `stream`."""
    name, file, owner, whole = stream.name, item["file"], stream.name[:64], False
    heads: list[Head] = []
    try:
        need(owner in trust.machines, f"there is no machine record of {owner}")
        for what in (f"{file}.seals", f"{file}.cosigns"):
            heads += read_heads(files[what], name, trust, what)
        stream.read(files[f"{file}.jsonl"], {head.size for head in heads})
        whole = True
        same = item["size"] == stream.size and item["root"] == stream.root().hex()
        need(same, f"its {stream.size} entries have another size or root than the manifest says")
    except Wrong as error:
        yield str(error)
    yield from check_heads(stream, heads, whole, trust.now_s)
    sealed = max((head.size for head in heads if head.purpose == "seal"), default=0)
    if whole and sealed < stream.size:
        yield f"seq {sealed}: no seal of its writer covers it and what follows"
    cut = trust.revoked[owner].get(name, 0) if owner in trust.revoked else stream.size
    if stream.size > cut:
        yield f"seq {cut}: from here on nothing counts, its machine is revoked"
    # A revoked key may sign anything, so what it vouches for vouches for nothing.
    others = [head.size for head in heads if head.machine not in {owner, *trust.revoked}]
    stream.vouched = min(max(others, default=0), stream.size)


def read_manifest(files: dict[str, bytes]) -> Any:
    """Return the manifest, when it is well-formed and names exactly the files that are here."""
    raw = files.get("manifest.json", b"")
    need(raw.endswith(b"\n"), "manifest.json is missing or cut")
    manifest = fields(canonical(raw[:-1], "manifest.json"), MANIFEST, "manifest.json")
    items = [fields(each, LISTED, "a stream in manifest.json") for each in manifest["streams"]]
    names = [each["file"] + end for each in items for end in (".jsonl", ".seals", ".cosigns")]
    twice = len({each["stream"] for each in items}) < len(items) or len(set(names)) < len(names)
    need(not twice, "manifest.json names a stream or file twice")
    for name in sorted({"manifest.json", *names} ^ set(files)):
        fault = "missing" if name in names else "not in the manifest"
        raise Wrong(f"the file {name!a} is {fault}")
    return manifest


def verify_export(files: dict[str, bytes], fleet: str | None, now_s: int) -> Any:
    """Check an export, given as file name -> bytes; return what is wrong, and the summary."""
    machines: dict[str, Any] = {}
    revoked: dict[str, dict[str, int]] = {}
    try:
        manifest = read_manifest(files)
        ours = manifest["fleet"]
        need(fleet in {None, ours}, f"this is an export of the fleet {ours}, not of {fleet}")
        for text in manifest["records"]:
            machine, record = machine_record(text, ours)
            if record["serial"] >= machines.get(machine, record)["serial"]:
                machines[machine] = record
        for text in manifest["revocations"]:
            key, cuts = revocation(text, ours)
            before = revoked.get(key, cuts)
            revoked[key] = {each: min(cuts[each], before.get(each, 0)) for each in cuts}
    except Wrong as error:
        return [f"export: {error}"], []
    trust, wrong = Trust(ours, machines, revoked, now_s), []
    streams = [Stream(item["stream"]) for item in manifest["streams"]]
    for stream, item in zip(streams, manifest["streams"]):  # noqa: B905 - Python 3.9 has no strict
        found = check_stream(stream, item, files, trust)
        wrong += [f"stream {stream.name}: {each}" for each in found]
    known = {each for stream in streams for each in stream.ids}
    outside = [(s.name, *each) for s in streams for each in s.causes if each[1] not in known]
    if manifest["closed"] and not wrong:
        wrong = [f"stream {s}: seq {n}: its cause {e} is not in the export" for s, n, e in outside]
    exposed = [stream for stream in streams if stream.vouched < stream.size]
    count = sum(stream.size - stream.vouched for stream in exposed)
    return wrong, [
        f"fleet {ours} (is it yours?): {len(machines)} machines, {len(streams)} streams",
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
    if wrong:
        lines = [*(f"WRONG {each}" for each in wrong), f"{len(wrong)} findings: it does not hold"]
    print("\n".join(lines))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
