"""Joining and renewing: the string, the request, the one transaction, the answer."""

from typing import Any

import msgspec
import pytest
from tests.fleet.world import (
    ADDRESS,
    ALICE,
    AUTHORITY,
    BUILD,
    FLEET_ID,
    HOUR,
    LAPTOP,
    NONCE,
    NOW,
    OTHER_AUTHORITY,
    STUDIO,
    STUDIO_RECORD,
    World,
    record,
    revocation,
    small_fleet,
)
from tests.promise import proves

from muster import limits
from muster.errors import Conflict, Denied, Forged, Malformed, Refused
from muster.fleet import folds, kinds
from muster.fleet.invite import open_invite, read_invite, token_hash, write_invite
from muster.fleet.join import (
    Enrolment,
    Join,
    JoinAnswer,
    RenewRequest,
    enrol,
    open_answer,
    open_join,
    renew,
    sign_join,
    sign_renew,
)
from muster.fleet.machine import Identity
from muster.fleet.record import binding_of, sign_binding
from muster.log import canon

TOKEN = bytes(range(16))
INVITE_TEXT = write_invite(FLEET_ID, TOKEN, ADDRESS)
INVITE = read_invite(INVITE_TEXT)
PHONE = Identity(b"phone".ljust(32))


@proves("fleet.invite-string")
def test_an_invite_is_one_short_string_that_says_fleet_token_and_address():
    assert len(INVITE_TEXT) < 110
    assert (INVITE.fleet, INVITE.token, INVITE.address) == (FLEET_ID, TOKEN, ADDRESS)
    assert read_invite(f"  {INVITE_TEXT.upper()}\n") == INVITE
    for address in ("10.0.0.7:1", "[fd00::7]:65535", "hub:7433"):
        assert read_invite(write_invite(FLEET_ID, TOKEN, address)).address == address


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "begins with `muster1.`"),
        ("muster2" + INVITE_TEXT[7:], "begins with `muster1.`"),
        (INVITE_TEXT[:40], "cut or has extra characters"),
        (INVITE_TEXT.replace(".hub", "a.hub", 1), "81 characters instead of 80"),
        ("muster1." + "1" * 80 + "." + ADDRESS, "damaged"),
        (
            INVITE_TEXT[:20] + ("a" if INVITE_TEXT[20] != "a" else "b") + INVITE_TEXT[21:],
            "checksum",
        ),
        (INVITE_TEXT.replace("hub.example", "hud.example"), "checksum"),
        (INVITE_TEXT.replace(":7433", ""), "not an address"),
        (INVITE_TEXT.replace(":7433", ":77777"), "not an address"),
        (INVITE_TEXT + "/../x", "not an address"),
        ("muster1." + "a" * 5000, "too long"),
    ],
)
@proves("fleet.invite-string")
def test_a_damaged_invite_is_told_with_what_is_wrong(text: str, sentence: str):
    with pytest.raises(Malformed, match=sentence):
        read_invite(text)


@proves("fleet.secrets-stay-inside")
def test_an_invite_and_its_entry_do_not_show_the_token():
    assert TOKEN.hex() not in repr(INVITE)
    assert str(TOKEN) not in repr(INVITE)
    body = open_invite(TOKEN, "phone", ("mobile",), NOW)
    assert TOKEN.hex().encode() not in canon.encode(body)
    assert (body.sha256, body.until_ms) == (token_hash(TOKEN), NOW + limits.INVITE_LIFE_MS)


@proves("fleet.names")
def test_nobody_is_invited_under_a_name_that_no_machine_may_have():
    for name in ("../etc", "All", "fleet", ""):
        with pytest.raises(Malformed, match="machine name"):
            open_invite(TOKEN, name, (), NOW)


class Hub:
    """A hub with one open invite for `phone`; a join runs as its daemon would run it."""

    def __init__(self) -> None:
        self.world: World = small_fleet()
        self.world.write(STUDIO, kinds.INVITE_OPEN, open_invite(TOKEN, "phone", ("mobile",), NOW))

    def invite(self, sha256: str) -> folds.InviteRow | None:
        return next(iter(self.world.select(folds.INVITE, sha256=sha256)), None)

    def join(self, raw: bytes, now_ms: int = NOW) -> bytes:
        join: Join = open_join(raw, FLEET_ID)
        enrolment: Enrolment = enrol(
            AUTHORITY,
            self.world.roster,
            join,
            self.invite(join.sha256),
            hub=STUDIO_RECORD,
            address=ADDRESS,
            now_ms=now_ms,
        )
        for kind, body in enrolment.entries:
            self.world.write(STUDIO, kind, body)
        return enrolment.answer

    def renew(self, raw: bytes, now_ms: int = NOW) -> bytes:
        made = renew(
            AUTHORITY,
            self.world.roster,
            raw,
            hub=STUDIO_RECORD,
            address=ADDRESS,
            now_ms=now_ms,
        )
        for kind, body in made.entries:
            self.world.write(STUDIO, kind, body)
        return made.answer

    def refuses(self, raw: bytes, error: type[Refused], sentence: str, now_ms: int = NOW) -> None:
        """The join is refused, and neither a row nor the stream moved."""
        before = dict(self.world.rows), dict(self.world.sizes)
        with pytest.raises(error, match=sentence):
            self.join(raw, now_ms)
        assert (self.world.rows, self.world.sizes) == before


@proves("fleet.invite-once", "fleet.join-answer")
def test_an_invited_machine_becomes_a_member_with_everything_it_needs():
    hub = Hub()
    welcome = open_answer(hub.join(sign_join(PHONE, INVITE, "phone")), PHONE, FLEET_ID)
    assert (welcome.record.name, welcome.record.roles) == ("phone", ("mobile",))
    assert welcome.hub == STUDIO_RECORD
    assert [each.operator for each in welcome.operators] == [ALICE.key]
    assert welcome.answer.address == ADDRESS
    assert hub.world.roster.find("phone") == welcome.record
    assert hub.world.skipped == []


@proves("fleet.invite-once")
def test_an_invite_that_was_used_enrols_nobody_else():
    hub = Hub()
    hub.join(sign_join(PHONE, INVITE, "phone"))
    other = Identity(b"thief".ljust(32))
    hub.refuses(sign_join(other, INVITE, "phone"), Denied, "used by another machine")


@proves("fleet.invite-once")
def test_a_machine_whose_answer_was_lost_asks_again_and_is_answered():
    hub = Hub()
    request = sign_join(PHONE, INVITE, "phone")
    first = open_answer(hub.join(request), PHONE, FLEET_ID)
    before = dict(hub.world.rows)
    again = open_answer(hub.join(request, NOW + 48 * HOUR), PHONE, FLEET_ID)
    assert again.record == first.record
    assert hub.world.rows == before


@proves("fleet.invite-once")
def test_another_name_an_old_invite_and_an_unknown_token_are_refused():
    hub = Hub()
    hub.refuses(sign_join(PHONE, INVITE, "tablet"), Denied, "for the name phone, not for tablet")
    late = NOW + limits.INVITE_LIFE_MS + 1
    hub.refuses(sign_join(PHONE, INVITE, "phone"), Denied, "has expired", late)
    stranger = INVITE._replace(token=bytes(16))
    hub.refuses(sign_join(PHONE, stranger, "phone"), Denied, "No invite has this token")


@proves("fleet.possession-first")
def test_a_request_without_the_root_keys_signature_is_refused_and_the_token_stays_good():
    hub = Hub()
    good = sign_join(PHONE, INVITE, "phone")
    message = good.rsplit(b"\n", 2)[0]
    forged = message + b"\n" + LAPTOP.root.sign(message).hex().encode() + b"\n"
    hub.refuses(forged, Forged, "not signed by the key it needs")
    assert hub.join(good)


@proves("fleet.possession-first")
def test_an_old_binding_does_not_pass_for_a_new_request():
    """A binding is public; whoever has a token must still hold the root key."""
    from muster.fleet.join import _JOIN, _Request

    hub = Hub()
    public = binding_of(record(PHONE, "phone"))
    body = _Request(binding=public.decode(), fleet=FLEET_ID, token=TOKEN.hex())
    hub.refuses(_JOIN.write(body, LAPTOP.root), Forged, "not signed")


@proves("fleet.other-fleet")
def test_a_request_for_another_fleet_is_refused():
    hub = Hub()
    theirs = INVITE._replace(fleet=OTHER_AUTHORITY.fleet)
    hub.refuses(sign_join(PHONE, theirs, "phone"), Forged, "another fleet")


@proves("fleet.tombstone")
def test_a_tombstoned_key_is_never_enrolled_again_under_any_name():
    hub = Hub()
    revoke = kinds.MachineRevoke(revocation=revocation(LAPTOP))
    hub.world.write(STUDIO, kinds.MACHINE_REVOKE, revoke)
    hub.refuses(sign_join(LAPTOP, INVITE, "phone"), Denied, "never enrolled again")


@proves("fleet.tombstone")
def test_the_name_of_a_revoked_machine_is_free_for_another_key():
    hub = Hub()
    revoke = kinds.MachineRevoke(revocation=revocation(LAPTOP))
    hub.world.write(STUDIO, kinds.MACHINE_REVOKE, revoke)
    token = b"x" * 16
    hub.world.write(STUDIO, kinds.INVITE_OPEN, open_invite(token, "laptop", (), NOW))
    hub.join(sign_join(PHONE, INVITE._replace(token=token), "laptop"))
    assert hub.world.roster.find("laptop").machine == PHONE.machine


@proves("fleet.invite-once")
def test_a_name_in_use_is_refused():
    hub = Hub()
    token = b"x" * 16
    hub.world.write(STUDIO, kinds.INVITE_OPEN, open_invite(token, "laptop", (), NOW))
    request = sign_join(PHONE, INVITE._replace(token=token), "laptop")
    hub.refuses(request, Denied, "take another name")


class _Borrowed(Identity):
    """A machine that shows a sub-key of another as its own."""

    @property
    def keys(self) -> dict[str, str]:
        return {**super().keys, "tls": BUILD.keys["tls"]}


@proves("fleet.sub-keys")
def test_a_machine_that_shows_anothers_key_as_its_own_is_refused():
    hub = Hub()
    thief = _Borrowed(b"phone".ljust(32))
    hub.refuses(sign_join(thief, INVITE, "phone"), Forged, "a key that belongs to build")


@proves("fleet.invite-once", "fleet.folds-total")
def test_entries_that_break_an_invites_rules_are_skipped():
    hub = Hub()
    use = kinds.InviteUse(machine=PHONE.machine, sha256=token_hash(TOKEN))
    hub.world.write(STUDIO, kinds.INVITE_USE, use)
    before = list(hub.world.select(folds.INVITE))
    other = kinds.InviteUse(machine=LAPTOP.machine, sha256=token_hash(TOKEN))
    unknown = kinds.InviteUse(machine=LAPTOP.machine, sha256="0" * 64)
    hub.world.write(STUDIO, kinds.INVITE_USE, other)
    hub.world.write(STUDIO, kinds.INVITE_USE, unknown)
    hub.world.write(STUDIO, kinds.INVITE_OPEN, open_invite(TOKEN, "phone", (), NOW))
    # A machine cannot use another machine's invite by writing so in its own stream.
    hub.world.write(BUILD, kinds.INVITE_USE, other)
    assert hub.world.skipped == ["invite-used", "invite-unknown", "invite-known", "invite-unknown"]
    assert list(hub.world.select(folds.INVITE)) == before


def changed(answer: bytes, **fields: Any) -> bytes:
    known = msgspec.json.decode(answer, type=JoinAnswer)
    return canon.encode(msgspec.structs.replace(known, **fields))


@proves("fleet.join-answer")
def test_an_answer_with_any_part_of_another_fleet_or_machine_is_refused():
    answer = Hub().join(sign_join(PHONE, INVITE, "phone"))
    theirs = record(PHONE, "phone", authority=OTHER_AUTHORITY)
    from muster.fleet.certificate import issue

    certificates = issue(OTHER_AUTHORITY, theirs, NOW)
    for fields in (
        {"fleet": OTHER_AUTHORITY.fleet},
        {"record": theirs.raw.decode()},
        {"record": STUDIO_RECORD.raw.decode()},
        {"ca_pem": certificates.ca_pem.decode()},
        {"tls_pem": issue(AUTHORITY, STUDIO_RECORD, NOW).tls_pem.decode()},
        {"hub": theirs.raw.decode()},
        {"operators": (theirs.raw.decode(),)},
        {"address": "nowhere"},
    ):
        with pytest.raises(Refused):
            open_answer(changed(answer, **fields), PHONE, FLEET_ID)
    assert open_answer(answer, PHONE, FLEET_ID).record.machine == PHONE.machine


@proves("fleet.renewal")
def test_a_machine_renews_its_certificates_years_after_they_expired():
    hub = Hub()
    first = open_answer(hub.join(sign_join(PHONE, INVITE, "phone")), PHONE, FLEET_ID)
    before = dict(hub.world.rows)
    later = NOW + 3 * 365 * 24 * HOUR
    request = sign_renew(PHONE, first.record, nonce=NONCE, issued_ms=later)
    fresh = open_answer(hub.renew(request, later), PHONE, FLEET_ID)
    assert fresh.record == first.record
    assert fresh.certificates.tls_pem != first.certificates.tls_pem
    assert hub.world.rows == before


class _Renewed(Identity):
    """The same machine after its TLS sub-key was exchanged."""

    @property
    def keys(self) -> dict[str, str]:
        return {**super().keys, "git": "ab" * 32}


@proves("fleet.renewal")
def test_a_machine_that_exchanged_a_sub_key_gets_a_record_of_the_next_serial():
    hub = Hub()
    first = open_answer(hub.join(sign_join(PHONE, INVITE, "phone")), PHONE, FLEET_ID)
    request = sign_renew(_Renewed(b"phone".ljust(32)), first.record, nonce=NONCE, issued_ms=NOW)
    before = dict(hub.world.rows)
    with pytest.raises(Conflict, match="too soon"):
        hub.renew(request, NOW + limits.KEYS_CHANGED_MS_MIN - 1)
    assert hub.world.rows == before
    hub.renew(request, NOW + limits.KEYS_CHANGED_MS_MIN)
    newest = hub.world.roster.find("phone")
    assert (newest.serial, newest.keys["git"], newest.roles) == (2, "ab" * 32, ("mobile",))
    with pytest.raises(Conflict, match="the newest is 2"):
        hub.renew(request)


@proves("fleet.renewal", "fleet.tombstone")
def test_a_revoked_machine_renews_nothing():
    hub = Hub()
    request = sign_renew(LAPTOP, hub.world.roster.find("laptop"), nonce=NONCE, issued_ms=NOW)
    revoke = kinds.MachineRevoke(revocation=revocation(LAPTOP))
    hub.world.write(STUDIO, kinds.MACHINE_REVOKE, revoke)
    before = dict(hub.world.rows)
    with pytest.raises(Denied, match="laptop is revoked"):
        hub.renew(request)
    assert hub.world.rows == before


@proves("fleet.renewal")
def test_a_renewal_signed_by_another_machine_is_refused():
    hub = Hub()
    good = sign_renew(LAPTOP, hub.world.roster.find("laptop"), nonce=NONCE, issued_ms=NOW)
    message = good.rsplit(b"\n", 2)[0]
    forged = message + b"\n" + BUILD.root.sign(message).hex().encode() + b"\n"
    with pytest.raises(Forged):
        hub.renew(forged)
    theirs = record(LAPTOP, "laptop", authority=OTHER_AUTHORITY)
    with pytest.raises(Forged, match="another fleet"):
        hub.renew(sign_renew(LAPTOP, theirs, nonce=NONCE, issued_ms=NOW))


@proves("fleet.renewal", "fleet.names")
def test_a_renewal_under_another_name_is_refused_and_changes_nothing():
    """A member may not take a name by renewing: neither a free one nor another machine's."""
    hub = Hub()
    known = hub.world.roster.find("laptop")
    before = dict(hub.world.rows)
    for name in ("tablet", "build"):
        renamed = msgspec.structs.replace(known, name=name)
        with pytest.raises(Forged, match="another machine or name"):
            hub.renew(sign_renew(LAPTOP, renamed, nonce=NONCE, issued_ms=NOW))
    assert hub.world.rows == before
    assert hub.world.roster.find("laptop") == known


@proves("fleet.renewal", "fleet.names")
def test_a_renewal_that_binds_another_root_key_enrols_nobody():
    """Else a member could let anybody in without an invitation, under its own name."""
    from muster.fleet.join import _RENEW

    hub = Hub()
    known = hub.world.roster.find("laptop")
    before = dict(hub.world.rows)
    friend = Identity(b"a friend".ljust(32))
    request = RenewRequest(
        binding=sign_binding(friend, FLEET_ID, "laptop").decode(), fleet=FLEET_ID, issued_ms=NOW,
        machine=LAPTOP.machine, nonce=NONCE.hex(), serial=known.serial,
    )  # fmt: skip
    with pytest.raises(Forged, match="another machine or name"):
        hub.renew(_RENEW.write(request, LAPTOP.root))
    assert hub.world.rows == before
