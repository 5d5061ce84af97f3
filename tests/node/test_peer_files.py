"""Files between two fleets: below a folder, within a grant, whole or not at all."""

import asyncio
import base64
import os
import types
from hashlib import sha256

import msgspec
import pytest
from tests.node.cores import WALL_MS
from tests.node.peer_worlds import HOUR_MS, Two
from tests.promise import proves

from muster.errors import Malformed
from muster.fleet import peer_file
from muster.fleet.grant import Bounds, Grant, sign_give
from muster.fleet.peer_file import File, check_path, sign_file
from muster.node.call.guests import REFUSED
from muster.node.links.peer_shelf import PeerShelf
from muster.node.services.peer_files import PieceTaken, TakePiece

DATA = bytes(range(256)) * 40


@pytest.fixture
def two(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "state").mkdir()
    return Two()


def allow(two, **bounds):
    door = two.acme["yard"]
    most = Bounds(**{"at_once": 2, "per_day": 3, "bytes_max": 100_000, **bounds})
    now_ms = WALL_MS + two.acme.ms
    given = Grant(door.id, f"fleet:{two.ours.fleet}", now_ms + HOUR_MS, "file", most)
    raw = sign_give(
        two.acme.operator.statement, two.acme.fleet, given, nonce=door.core.draw(16),
        issued_ms=now_ms,
    )  # fmt: skip
    args = {"to": "fleet:ours", "verb": "file", "object": door.id}
    options = {"grant": msgspec.to_builtins(given), "statement": raw.decode()}
    answer = door.order("grant", "file", args, options=options)
    assert answer["ok"], answer
    two.acme.pass_ms(1_000)


def document(two, data=DATA, path="report.pdf", at="hub", **changed):
    one = two.ours[at]
    core, yard = one.core, two.acme["yard"]
    made = File(
        fleet=two.acme.fleet, by=one.id, door=yard.id, issued_ms=core.now.wall_ms,
        nonce=core.draw(16).hex(), of=two.ours.fleet, path=path,
        sha256=sha256(data).hexdigest(), size=len(data),
    )  # fmt: skip
    raw = sign_file(core.membership.signer("statement"), msgspec.structs.replace(made, **changed))
    return {"letter": raw.decode(), "record": one.record.decode()}


class Disk:
    """The machine that gets files, with a disk."""

    def __init__(self, two, home):
        self.two, self.yard, self.told = two, two.acme["yard"], []
        daemon = types.SimpleNamespace(
            home=types.SimpleNamespace(path=home / "state"), post=self.told.append,
            supervisor=None,
        )  # fmt: skip
        self.shelf = PeerShelf(daemon)

    def show(self, args, at=-1, piece=b"", who="hub"):
        """What a machine of the other fleet hears of a piece."""
        self.yard.effects.clear()
        said = {**args, "at": at, "piece": base64.b64encode(piece).decode()}
        link = self.two.link(self.yard, self.two.ours[who])
        answer = self.yard.call("peer.file", said, link=link)
        pieces = [each for each in self.yard.effects if isinstance(each, TakePiece)]
        if not pieces:
            return answer
        self.told.clear()
        asyncio.run(self.shelf.take(pieces[0]))
        (taken,) = [each for each in self.told if isinstance(each, PieceTaken)]
        self.yard.answers.clear()
        self.yard.step(taken)
        return self.yard.answers[-1]

    def whole(self, args, data=DATA):
        """Show all of it in two pieces; the last answer."""
        first = self.show(args)
        if not first["ok"] or first["value"]["state"] != "more":
            return first
        at = first["value"]["at"]
        for end in (5_000, len(data)):
            answer = self.show(args, at, data[at:end])
            at = answer["value"]["at"]
        return answer


@pytest.fixture
def disk(two, tmp_path):
    return Disk(two, tmp_path)


def inbox(tmp_path):
    return tmp_path / "muster-inbox" / "ours"


def names(folder):
    return sorted(os.path.relpath(os.path.join(at, name), folder)
                  for at, _, files in os.walk(folder) for name in files)  # fmt: skip


@proves("peer.file-by-grant")
def test_a_file_lies_in_the_inbox_whole_and_its_person_is_told_once(two, disk, tmp_path):
    allow(two)
    args = document(two, path="week 48/report.pdf")
    assert disk.whole(args)["value"] == {"state": "stored", "at": len(DATA), "why": ""}
    assert (inbox(tmp_path) / "week 48" / "report.pdf").read_bytes() == DATA
    assert names(inbox(tmp_path)) == ["week 48/report.pdf"]
    # Shown again it is there already, and nobody is told again.
    assert disk.show(args)["value"]["state"] == "stored"
    assert disk.show(document(two, path="week 48/report.pdf"))["value"]["state"] == "stored"
    (told,) = two.acme["yard"].call("inbox", {})["value"]
    assert told["text"].startswith("hub.ours (another fleet) left a file: ~/muster-inbox/ours/week")
    assert two.acme["yard"].core.counters["peer-files-taken"] == 1


@proves("peer.file-by-grant")
def test_without_a_grant_of_files_nothing_is_taken_and_nothing_told(two, disk, tmp_path):
    two.grant(two.acme, "yard", two.ours)
    answer = disk.show(document(two))
    assert answer == {"ok": False, "error": {"kind": "Denied", "text": REFUSED, "exit": 4}}
    assert not (tmp_path / "muster-inbox").exists()
    assert not two.acme["yard"].entries("peer.file")
    assert two.acme["yard"].core.counters["peer-files-refused"] == 1
    asked = {"to": "fleet:ours", "verb": "file", "object": "yard", "size": "2GiB", "folder": "~/in"}
    found = two.acme["yard"].call("grant.check", asked)["value"]["bounds"]
    assert (found["bytes_max"], found["folder"]) == (2 * 1024**3, "~/in")
    odd = two.acme["yard"].call("grant.check", {**asked, "folder": "~/../x"})
    assert "no `..`" in odd["error"]["text"]


@proves("peer.file-resumed")
def test_a_file_goes_on_where_a_cut_left_it_and_counts_by_its_digest_alone(two, disk, tmp_path):
    allow(two)
    args = document(two)
    assert disk.show(args)["value"]["at"] == 0
    assert disk.show(args, 0, DATA[:5_000])["value"] == {"state": "more", "at": 5_000, "why": ""}
    # A piece from elsewhere changes nothing.
    assert disk.show(args, 9_000, DATA[9_000:])["value"]["at"] == 5_000
    for key in list(disk.shelf._coming):
        disk.shelf._close(key)
    again = document(two)
    assert disk.show(again)["value"]["at"] == 5_000
    assert disk.show(again, 5_000, DATA[5_000:])["value"]["state"] == "stored"
    assert (inbox(tmp_path) / "report.pdf").read_bytes() == DATA
    wrong = document(two, data=b"x" * 100, path="other")
    disk.show(wrong)
    refused = disk.show(wrong, 0, b"y" * 100)["value"]
    assert refused["state"] == "refused"
    assert "not what was signed" in refused["why"]
    assert names(inbox(tmp_path)) == ["report.pdf"]
    empty = document(two, data=b"", path="empty")
    assert disk.show(empty)["value"]["state"] == "stored"


@proves("peer.file-stays-below")
@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a/../../x", ".ssh/authorized_keys", "a//b", "a\x00b", "a\\b", ".x"]
)
def test_a_path_that_leads_anywhere_else_is_signed_by_nobody_and_read_by_nobody(two, disk, path):
    allow(two)
    with pytest.raises(Malformed):
        check_path(path)
    one, good = two.ours["hub"], document(two, path="report.pdf")
    forged = File(
        fleet=two.acme.fleet, by=one.id, door=two.acme["yard"].id,
        issued_ms=one.core.now.wall_ms, nonce="0" * 32, of=two.ours.fleet, path=path,
        sha256="0" * 64, size=3,
    )  # fmt: skip
    raw = peer_file._FORM.write(forged, one.core.membership.signer("statement"))
    answer = disk.show({**good, "letter": raw.decode()})
    assert answer["error"]["text"] == REFUSED
    assert not two.acme["yard"].entries("peer.file")


@proves("peer.file-stays-below")
def test_no_link_leads_out_of_the_folder_and_nothing_there_is_replaced(two, disk, tmp_path):
    allow(two, per_day=9)
    inbox(tmp_path).mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (inbox(tmp_path) / "away").symlink_to(outside)
    (inbox(tmp_path) / "link").symlink_to(outside / "new")
    (inbox(tmp_path) / "mine").write_text("mine")
    for path, why in (
        ("away/x", "leads out of"),
        ("link", "replaces none"),
        ("mine", "replaces none"),
    ):
        answer = disk.whole(document(two, path=path))["value"]
        assert (answer["state"], why in answer["why"]) == ("refused", True), answer
    assert not list(outside.iterdir())
    assert (inbox(tmp_path) / "mine").read_text() == "mine"
    # What comes there while it is on its way stays, too.
    args = document(two)
    disk.show(args)
    (inbox(tmp_path) / "report.pdf").write_text("quicker")
    assert "is there by now" in disk.show(args, 0, DATA)["value"]["why"]
    assert (inbox(tmp_path) / "report.pdf").read_text() == "quicker"


@proves("peer.file-stays-below")
def test_a_folder_of_the_grant_is_used_and_musters_own_home_never(two, disk, tmp_path):
    allow(two, folder="~/state")
    refused = disk.whole(document(two))["value"]
    assert "Muster's own home" in refused["why"]
    assert not list((tmp_path / "state").iterdir())


@proves("peer.file-bounded")
def test_so_many_files_as_are_granted_are_opened_at_once_also_in_one_moment(two, disk, tmp_path):
    allow(two, at_once=1, per_day=20)
    pieces = []
    for path in ("a", "b", "c"):
        said = {**document(two, data=b"abc", path=path), "at": -1, "piece": ""}
        disk.yard.call("peer.file", said, link=two.link(disk.yard, two.ours["hub"]))
        pieces += [each for each in disk.yard.effects if isinstance(each, TakePiece)]
        disk.yard.effects.clear()
    assert len(pieces) == 3

    async def all_of_them():
        await asyncio.gather(*(disk.shelf.take(each) for each in pieces))

    asyncio.run(all_of_them())
    told = [each.why for each in disk.told if isinstance(each, PieceTaken)]
    assert sorted("at once are granted" in why for why in told) == [False, True, True]


@proves("peer.file-bounded")
def test_what_is_larger_or_more_than_the_grant_says_is_refused_with_words(two, disk, tmp_path):
    allow(two, bytes_max=10_000, per_day=2)
    why = disk.show(document(two))["value"]["why"]
    assert why == f"it has {len(DATA)} bytes, and 10000 are granted"
    assert not (tmp_path / "muster-inbox").exists()
    small = document(two, data=b"abc", path="a")
    for at, piece in ((0, b"abcd"), (4, b""), (2, b"bc")):
        assert "no part of what was signed" in disk.show(small, at, piece)["value"]["why"]
    for path in ("a", "b"):
        args = document(two, data=b"abc", path=path)
        disk.show(args)
        assert disk.show(args, 0, b"abc")["value"]["state"] == "stored"
    third = disk.show(document(two, data=b"abc", path="c"))["value"]
    assert third["why"] == "2 files a day are granted, and so many came"
    # The first, the three pieces, and the third.
    assert two.acme["yard"].core.counters["peer-files-refused"] == 5
    assert names(inbox(tmp_path)) == ["a", "b"]


@proves("peer.file-forged")
def test_a_file_counts_only_from_the_machine_that_signed_it_for_this_one(two, disk):
    allow(two)
    good = document(two)
    hub, yard = two.ours["hub"], two.acme["yard"]
    for args, who in (
        (good, "studio"),
        ({**good, "record": two.ours["studio"].record.decode()}, "hub"),
        ({**good, "letter": good["letter"].replace("report", "rep0rt")}, "hub"),
        (document(two, of=two.acme.fleet), "hub"),
        (document(two, door=two.acme["shed"].id), "hub"),
        (document(two, by=two.ours["studio"].id), "hub"),
        (document(two, issued_ms=hub.core.now.wall_ms - 8 * 24 * HOUR_MS), "hub"),
        ({**good, "letter": "x"}, "hub"),
    ):
        assert disk.show(args, who=who)["error"]["text"] == REFUSED
    assert yard.call("peer.file", {**good, "piece": "%"}, link=two.link(yard, hub)) == {
        "ok": False, "error": {"kind": "Denied", "text": REFUSED, "exit": 4},
    }  # fmt: skip
    assert not yard.entries("peer.file")


@proves("peer.file-by-grant")
def test_a_fleet_that_is_removed_leaves_nothing_more(two, disk, tmp_path):
    allow(two)
    args = document(two)
    disk.show(args)
    disk.show(args, 0, DATA[:5_000])
    two.remove(two.acme, two.ours)
    assert disk.show(args, 5_000, DATA[5_000:]) is None
    assert not (inbox(tmp_path) / "report.pdf").exists()
