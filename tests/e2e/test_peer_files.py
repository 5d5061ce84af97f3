"""Two fleets of real daemons: one leaves files with a machine of the other."""

from hashlib import sha256

import pytest

from tests.e2e.agents import muster
from tests.e2e.fleet import Fleet, until
from tests.e2e.test_peer_tasks import says
from tests.e2e.test_peers import take_in
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@proves("peer.file-by-grant", "peer.file-bounded", "peer.file-resumed")
def test_a_file_is_left_with_another_fleet_within_its_grant_and_with_the_peering_it_ends():
    """1. Without a grant it is refused, and the refusal says who must grant what. 2. With one it is
    there, whole. 3. A second of that name replaces nothing; the same again is there already. 4. One
    that is too large is refused. 5. Removed: nothing more.
    """
    with Fleet(["hub"]) as ours, Fleet(["yard"]) as acme:
        for fleet in (ours, acme):
            fleet.hub.home.put_seed("operator.seed", fleet.operator_seed)
            fleet.start()
        hub, yard = ours["hub"], acme["yard"]
        take_in(hub, yard.ask("peer.card")["card"], "acme")
        take_in(yard, hub.ask("peer.card")["card"], "ours")
        data = bytes(range(256)) * 2_000
        source, folder = ours.root / "report.pdf", acme.root / "in"
        source.write_bytes(data)
        folder.mkdir()
        refused = muster(ours, hub, "cp", str(source), "yard.acme:")
        assert refused.code == 4, refused
        assert "fleet:NAME file --object yard" in refused.err
        words = ("file", "--object", "yard", "--folder", str(folder), "--size", "1MiB")
        says(yard, "grant", "fleet:ours", *words)
        said = says(hub, "cp", str(source), "yard.acme:week/")
        assert f"{len(data)} bytes, sha256 {sha256(data).hexdigest()[:11]}" in said
        assert (folder / "week" / "report.pdf").read_bytes() == data
        inbox = until(lambda: yard.ask("inbox", {"all": True}), "its person is told")
        assert "hub.ours (another fleet) left a file" in inbox[0]["text"]
        says(hub, "cp", str(source), "muster://yard.acme/week/report.pdf")
        source.write_bytes(data[:1000])
        replaced = muster(ours, hub, "cp", str(source), "yard.acme:week/report.pdf")
        assert "replaces none" in replaced.err, replaced
        assert (folder / "week" / "report.pdf").read_bytes() == data
        source.write_bytes(data * 3)
        large = muster(ours, hub, "cp", str(source), "yard.acme:large")
        assert "are granted" in large.err, large
        up = muster(ours, hub, "cp", str(source), "yard.acme:../out")
        assert up.code != 0, up
        says(yard, "peer", "remove", "ours", "--yes")
        assert muster(ours, hub, "cp", str(source), "yard.acme:x").code != 0
        assert sorted(each.name for each in folder.rglob("*")) == ["report.pdf", "week"]
