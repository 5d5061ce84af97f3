"""What a NATS server of the fleet believes: who is who, and who may do what; all of it from one seed."""

import base64
import binascii
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fleet.world import (
    AUTHORITY,
    BUILD,
    BUILD_RECORD,
    LAPTOP_RECORD,
    NOW,
    OTHER_AUTHORITY,
    STUDIO_RECORD,
    record,
)
from tests.promise import proves

from muster.fleet import nats_jwt
from muster.fleet.machine import Identity
from muster.log.keys import verify

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "nats_jwt.json").read_text(encoding="utf-8")
)
LIVE = [STUDIO_RECORD, BUILD_RECORD, LAPTOP_RECORD]
LETTERS = {0: "A", 14 << 3: "O", 20 << 3: "U"}


def key_of(text: str) -> bytes:
    """The key in a text of NATS, as NATS itself reads it."""
    raw = base64.b32decode(text + "=" * (-len(text) % 8))
    assert binascii.crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little")
    return raw[1:-2]


def opened(token: str) -> dict[str, Any]:
    """What a token says, where its issuer signed it."""
    head, body, signature = (
        base64.urlsafe_b64decode(p + "=" * (-len(p) % 4)) for p in token.split(".")
    )
    assert json.loads(head) == {"alg": "ed25519-nkey", "typ": "JWT"}
    said: dict[str, Any] = json.loads(body)
    assert verify(key_of(said["iss"]), token.rpartition(".")[0].encode(), signature)
    return said


@proves("fleet.nats-text")
@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.sampled_from(sorted(LETTERS)))
def test_a_key_as_text_begins_with_what_it_is_for_and_is_read_back(public: bytes, prefix: int):
    text = nats_jwt.text_of(prefix, public)
    assert text[0] == LETTERS[prefix]
    assert len(text) == 56
    assert key_of(text) == public


@proves("fleet.nats-vectors")
def test_the_frozen_tokens_are_written_again_byte_for_byte():
    claims = nats_jwt.claims(AUTHORITY, STUDIO_RECORD, [BUILD_RECORD])
    assert claims.operator == VECTORS["operator"]
    assert claims.system == VECTORS["system"]
    assert claims.accounts == VECTORS["accounts"]
    assert nats_jwt.pass_of(AUTHORITY, BUILD_RECORD) == VECTORS["pass"]
    assert nats_jwt.keeper_pass(AUTHORITY, STUDIO_RECORD) == VECTORS["keeper"]


@proves("fleet.nats-accounts")
def test_each_machine_has_an_account_that_holds_nothing_and_reaches_its_own_alone():
    claims = nats_jwt.claims(AUTHORITY, STUDIO_RECORD, LIVE)
    operator = opened(claims.operator)
    assert operator["sub"] == operator["iss"]
    assert operator["nats"]["system_account"] == claims.system
    said = {key: opened(token) for key, token in claims.accounts.items()}
    assert {each["iss"] for each in said.values()} == {operator["iss"]}
    assert all(each["sub"] == key for key, each in said.items())
    (boxes,) = [key for key, each in said.items() if each["name"] == "BOXES"]
    assert [e["type"] for e in said[boxes]["nats"]["exports"]] == ["service"] * 3
    for each in LIVE:
        (mine,) = [one["nats"] for one in said.values() if one["name"] == each.machine]
        assert "exports" not in mine
        assert all(mine["limits"][what] == 0 for what in ("leaf", "streams", "disk_storage"))
        for way in mine["imports"]:
            assert (way["type"], way["account"]) == ("service", boxes)
            # Whatever is left open in a subject, its own name is in it.
            assert each.machine in way["subject"]
            assert not way["subject"].startswith((">", "*"))
    system = said[claims.system]["nats"]["limits"]
    assert (system["streams"], system["disk_storage"]) == (0, 0)


@proves("fleet.nats-accounts")
def test_a_pass_is_for_the_nats_key_of_a_record_and_a_server_rules_over_its_own_alone():
    shown = opened(nats_jwt.pass_of(AUTHORITY, BUILD_RECORD))
    assert key_of(shown["sub"]) == BUILD_RECORD.key("nats")
    for server, other in ((STUDIO_RECORD, BUILD_RECORD), (BUILD_RECORD, STUDIO_RECORD)):
        keeper = opened(nats_jwt.keeper_pass(AUTHORITY, server))
        assert keeper["iss"] in nats_jwt.claims(AUTHORITY, server, LIVE).accounts
        assert keeper["iss"] not in nats_jwt.claims(AUTHORITY, other, LIVE).accounts
    theirs = nats_jwt.pass_of(OTHER_AUTHORITY, record(BUILD, "build", authority=OTHER_AUTHORITY))
    assert opened(theirs)["iss"] not in nats_jwt.claims(AUTHORITY, STUDIO_RECORD, LIVE).accounts


@proves("fleet.nats-accounts")
def test_what_was_issued_for_earlier_keys_is_before_what_an_account_takes():
    newer = record(BUILD, "build", serial=2, issued_ms=NOW + 3_600_000)
    accounts = nats_jwt.claims(AUTHORITY, STUDIO_RECORD, [newer]).accounts
    (mine,) = [s["nats"] for s in map(opened, accounts.values()) if s["name"] == BUILD.machine]
    earlier, later = (opened(nats_jwt.pass_of(AUTHORITY, r))["iat"] for r in (BUILD_RECORD, newer))
    assert earlier <= mine["revocations"]["*"] < later


@proves("fleet.nats-accounts")
@settings(deadline=None)
@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=4, unique=True))
def test_whatever_the_machines_are_nothing_is_random_and_no_key_serves_two(seeds: list[bytes]):
    records = [record(Identity(seed), f"m{at}") for at, seed in enumerate(seeds)]
    once, again = (nats_jwt.claims(AUTHORITY, records[0], records) for _ in range(2))
    assert once == again
    assert len(once.accounts) == len(records) + 2
    known = {r.machine for r in records} | {r.keys["nats"] for r in records} | {AUTHORITY.fleet}
    assert not known & {key_of(account).hex() for account in once.accounts}


def test_the_vectors_say_what_they_are():
    assert "comment" in VECTORS
    with pytest.raises(AssertionError):
        opened(VECTORS["pass"][:-2] + "AA")
