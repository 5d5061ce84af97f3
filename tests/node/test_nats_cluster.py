"""Three NATS servers that are one: what is acknowledged is there once, and who is told what."""

import asyncio
import base64
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from tests.channel.nats_server import NatsServer, nats_server
from tests.channel.rigs import run
from tests.channel.test_post import unexpected
from tests.fleet.world import AUTHORITY, BUILD, LAPTOP, NOW, OTHER_AUTHORITY, STUDIO
from tests.promise import proves

pytest.importorskip("nats", reason="pip install 'muster-fleet[nats]'")
from nats.js.errors import APIError
from tests.node.nats_servers import CLUSTER, RECORDS, Servers, measure

from muster.channel import nats, nats_client
from muster.channel.base import Visitor
from muster.channel.nats_client import Login, NatsClient
from muster.errors import Broken, Denied, Forged, Malformed, NotFound, Refused
from muster.fleet import nats_jwt
from muster.fleet.nats_cluster import open_servers, servers_of, sign_servers
from muster.fleet.roster import Roster
from muster.node.attempts import question
from muster.node.engine.cluster import Cluster
from muster.node.engine.moved import move
from muster.node.engine.told import Answer, Place, cluster_id, configuration, digest, pin_of, tell
from muster.node.host.config import NatsServe

NAMES = tuple(RECORDS[m].name for m in CLUSTER)
PLACES = {m: Place(f"10.0.0.{i}:4222", f"10.0.0.{i}:6222") for i, m in enumerate(CLUSTER, 1)}


@proves("node.nats-cluster-keeps")
def test_what_three_servers_acknowledged_is_there_once_while_a_leader_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # What the server that dies takes along is given again sooner than a machine's 30 s.
    monkeypatch.setattr(nats_client, "TAKEN_S", 5)
    monkeypatch.setattr(nats_client, "ANSWER_S", 3.0)
    figures = measure(tmp_path, messages=1500, kills=1)
    assert (figures.acknowledged, figures.lost, figures.doubled) == (1500, 0, 0), figures
    assert figures.kills == 1


def cluster(
    tmp_path: Path, serve: NatsServe, *, machine: str = STUDIO.machine, revoked: str = ""
) -> Cluster:
    """Of a machine in a fleet of three; the studio's holds the authority."""
    live = {m: record for m, record in RECORDS.items() if m != revoked}
    gone = (
        {revoked: SimpleNamespace(name=RECORDS[revoked].name, how="was revoked")} if revoked else {}
    )
    roster: Any = Roster.__new__(Roster)
    for name, value in (
        ("fleet", AUTHORITY.fleet), ("machines", live), ("known", RECORDS), ("revoked", gone), ("former", {}),
    ):  # fmt: skip
        object.__setattr__(roster, name, value)
    core = SimpleNamespace(
        authority=AUTHORITY if machine == STUDIO.machine else None, machine=machine, roster=roster,
        name=RECORDS[machine].name, settings={"address": "10.0.0.9:7447"},
        membership=SimpleNamespace(name_of=lambda m: RECORDS[m].name),
        now=SimpleNamespace(wall_ms=NOW),
    )  # fmt: skip
    config = SimpleNamespace(nats=serve)
    daemon: Any = SimpleNamespace(
        core=core, machine=SimpleNamespace(config=config), supervisor=SimpleNamespace(keep=lambda *_: None)
    )  # fmt: skip
    tmp_path.mkdir(exist_ok=True)
    found = Cluster(daemon, tmp_path / machine[:8])
    found.begin()
    return found


SERVE = NatsServe(serve="0.0.0.0:4222", cluster=NAMES)


@proves("node.nats-cluster-told")
def test_who_is_named_is_told_what_it_asks_for_and_nobody_else_is(tmp_path: Path):
    mine = cluster(tmp_path, SERVE)
    with pytest.raises(Broken, match=r"waits for .* and .* to say where"):
        mine.told()
    answer = mine.tell(BUILD.machine, PLACES[BUILD.machine], [LAPTOP.machine, "f" * 64])
    assert set(answer.accounts) == {LAPTOP.machine}
    assert set(answer.places) == {STUDIO.machine, BUILD.machine}
    assert answer.places[STUDIO.machine] == Place("10.0.0.9:4222", "10.0.0.9:6222")
    mine.tell(LAPTOP.machine, PLACES[LAPTOP.machine], [])
    assert set(mine.told().places) == set(CLUSTER)
    # Another start knows it, too.
    assert set(cluster(tmp_path, SERVE).told().places) == set(CLUSTER)

    none = cluster(tmp_path, NatsServe(serve="0.0.0.0:4222")).tell(
        BUILD.machine, PLACES[BUILD.machine], [LAPTOP.machine]
    )
    assert replace(none, word="", stamp=0) == Answer("", "", {}, "", "", "")
    with pytest.raises(NotFound, match="does not hold the fleet's authority"):
        cluster(tmp_path, SERVE, machine=BUILD.machine).tell(
            LAPTOP.machine, PLACES[LAPTOP.machine], []
        )
    # The cluster is the same one without who was revoked, and that one is told nothing.
    less = cluster(tmp_path, SERVE, revoked=LAPTOP.machine)
    assert less.told().cluster == CLUSTER
    with pytest.raises(Denied):
        less.tell(LAPTOP.machine, PLACES[LAPTOP.machine], [])


@proves("node.nats-cluster-told")
def test_a_cluster_is_the_same_one_without_who_is_revoked_and_under_another_name(tmp_path: Path):
    by_id = NatsServe(serve="0.0.0.0:4222", cluster=CLUSTER)
    less = cluster(tmp_path, by_id, revoked=LAPTOP.machine)
    assert less.members() == CLUSTER
    former = [name if name != RECORDS[LAPTOP.machine].name else "tower" for name in NAMES]
    renamed = cluster(tmp_path, NatsServe(serve="0.0.0.0:4222", cluster=tuple(former)))
    with pytest.raises(NotFound, match="tower"):
        renamed.members()
    object.__setattr__(renamed._core.roster, "former", {"tower": LAPTOP.machine})
    assert renamed.members() == CLUSTER
    # Two had the name of the one that is gone: it is whose server was one of them.
    less = cluster(tmp_path, SERVE, revoked=LAPTOP.machine)
    known = RECORDS | {"f" * 64: RECORDS[LAPTOP.machine]}
    object.__setattr__(less._core.roster, "known", known)
    less._places = dict(PLACES)
    assert less.members() == CLUSTER


@proves("node.nats-cluster-told")
def test_what_the_authority_did_not_say_or_said_to_others_is_not_taken(tmp_path: Path):
    told = cluster(tmp_path, SERVE).tell(BUILD.machine, PLACES[BUILD.machine], [LAPTOP.machine])
    theirs = cluster(tmp_path, NatsServe(serve="0.0.0.0:4222"), machine=BUILD.machine)
    with pytest.raises(Broken, match="does not hold the fleet's authority"):
        theirs.told()
    said, fleet = digest(told), AUTHORITY.fleet
    others = ("f" * 64, *CLUSTER[1:])
    for word, cluster_, error in (
        (sign_servers(OTHER_AUTHORITY, CLUSTER, said), CLUSTER, Exception),
        (sign_servers(AUTHORITY, CLUSTER, "0" * 64), CLUSTER, Forged),
        (sign_servers(AUTHORITY, CLUSTER, digest(replace(told, cluster=others))), others, Denied),
        (
            sign_servers(AUTHORITY, (LAPTOP.machine, STUDIO.machine, "f" * 64), said),
            CLUSTER,
            Denied,
        ),
    ):
        with pytest.raises(error):
            theirs._take(replace(told, word=word.decode(), cluster=cluster_))
    # Who passes it on changes nothing of it.
    account = told.accounts[LAPTOP.machine]
    for odd in (
        {"operator": f"{told.operator}x"},
        {"system": account.key},
        {"shared": {}},
        {"certificate": told.ca},
        {"ca": told.certificate},
        {"places": PLACES},
        {"stamp": told.stamp + 1},
        {"accounts": {LAPTOP.machine: replace(account, serial=2**53)}},
    ):
        with pytest.raises(Forged):
            theirs._take(replace(told, **odd))
    assert open_servers(told.word.encode(), fleet, said) == CLUSTER
    # Nor is what the authority told another server of the cluster.
    of_laptop = cluster(tmp_path / "apart", SERVE).tell(LAPTOP.machine, PLACES[LAPTOP.machine], [])
    with pytest.raises(Denied, match="another machine's"):
        theirs._take(of_laptop)
    theirs._take(told)
    # What is known already, said again, is nothing new to its server.
    changes = theirs.changes
    theirs._take(cluster(tmp_path, SERVE).tell(BUILD.machine, PLACES[BUILD.machine], []))
    assert theirs.changes == changes
    assert theirs._lacking() == sorted(set(CLUSTER) - {LAPTOP.machine}, key=list(RECORDS).index)
    # What it was told it knows after another start.
    again = cluster(tmp_path, NatsServe(serve="0.0.0.0:4222"), machine=BUILD.machine)
    assert again._told == theirs._told


@proves("node.nats-cluster-newest")
def test_an_older_word_replaces_no_newer_one_also_after_a_start(tmp_path: Path):
    keeper, serve = cluster(tmp_path, SERVE), NatsServe(serve="0.0.0.0:4222")
    theirs = cluster(tmp_path, serve, machine=BUILD.machine)
    first = keeper.tell(BUILD.machine, PLACES[BUILD.machine], [LAPTOP.machine])
    theirs._take(first)
    moved = Place("10.0.0.7:4222", "10.0.0.7:6222")
    keeper.tell(LAPTOP.machine, moved, [])
    second = keeper.tell(BUILD.machine, PLACES[BUILD.machine], [])
    assert second.stamp > first.stamp
    theirs._take(second)
    for it in (theirs, cluster(tmp_path, serve, machine=BUILD.machine)):
        before = it._told
        with pytest.raises(Refused, match="older than what it knows"):
            it._take(first)
        it._take(second)
        assert it._told == before
        assert before is not None
        assert before.places[LAPTOP.machine] == moved
        assert LAPTOP.machine in before.accounts
    # Another word under one stamp is no newer one.
    odd = replace(second, certificate=first.ca)
    odd = replace(odd, word=sign_servers(AUTHORITY, CLUSTER, digest(odd)).decode())
    with pytest.raises(Refused, match="older than what it knows"):
        theirs._take(odd)
    # What is said after another start, by a clock that was put back, is newer all the same.
    again = cluster(tmp_path, SERVE)
    again._core.now.wall_ms = NOW - 365 * 24 * 3_600_000
    third = again.tell(BUILD.machine, PLACES[BUILD.machine], [])
    assert third.stamp > second.stamp
    theirs._take(third)
    assert cluster(tmp_path, serve, machine=BUILD.machine)._told == theirs._told
    # Said again, nothing is new, and nothing is written.
    assert again.tell(BUILD.machine, PLACES[BUILD.machine], []).stamp == third.stamp


@proves("node.nats-pass-newest", "node.nats-cluster-newest")
def test_who_is_named_no_more_hears_it_from_the_authority_serves_no_more_and_may_be_named_again(
    tmp_path: Path,
):
    serve = NatsServe(serve="0.0.0.0:4222")
    keeper, theirs = cluster(tmp_path, SERVE), cluster(tmp_path, serve, machine=BUILD.machine)
    mine = PLACES[BUILD.machine]
    for machine in (BUILD.machine, LAPTOP.machine):
        keeper.tell(machine, PLACES[machine], [])
    keeper.told()
    first = keeper.tell(BUILD.machine, mine, list(RECORDS))
    theirs._take(first)
    assert theirs.told().cluster == CLUSTER
    changes = theirs.changes
    without = cluster(tmp_path, NatsServe(serve="0.0.0.0:4222"))
    gone = without.tell(BUILD.machine, mine, list(RECORDS))
    # Nobody else says so.
    with pytest.raises(Forged):
        theirs._take(replace(gone, stamp=gone.stamp + 1))
    theirs._take(gone)
    assert theirs.changes > changes
    for it in (theirs, cluster(tmp_path, serve, machine=BUILD.machine)):
        with pytest.raises(Broken, match="does not name this one"):
            it.told()
        assert it._lacking() == []
        # What was said before that makes it one of them no more.
        with pytest.raises(Refused, match="older than what it knows"):
            it._take(first)
        changes = it.changes
        it._take(gone)
        assert it.changes == changes
    again = cluster(tmp_path, SERVE).tell(BUILD.machine, mine, list(RECORDS))
    assert again.stamp > gone.stamp
    theirs._take(again)
    assert theirs.told().cluster == CLUSTER
    with pytest.raises(Refused):
        theirs._take(gone)


@proves("node.nats-leaf-settings")
def test_where_servers_of_machines_are_let_in_is_told_and_accounts_are_taken_anew_for_it(
    tmp_path: Path,
):
    theirs = cluster(
        tmp_path, NatsServe(serve="10.0.0.1:4222", leaves=":7422"), machine=BUILD.machine
    )
    assert theirs.place() == Place("10.0.0.1:4222", "10.0.0.1:6222", "10.0.0.1:7422")
    without = cluster(tmp_path, SERVE).tell(BUILD.machine, theirs.place(), list(RECORDS))
    theirs._take(without)
    assert theirs._lacking() == []
    lets = cluster(tmp_path, replace(SERVE, leaves="0.0.0.0:7422"))
    told = lets.tell(BUILD.machine, theirs.place(), [])
    assert (told.leaves, told.places[BUILD.machine].leaves) == (True, "10.0.0.1:7422")
    theirs._take(told)
    # The accounts that it has let no server in.
    assert set(theirs._lacking()) == set(RECORDS)
    theirs._take(lets.tell(BUILD.machine, theirs.place(), list(RECORDS)))
    assert theirs._lacking() == []
    assert theirs._told is not None
    account = theirs._told.accounts[LAPTOP.machine].jwt.split(".")[1]
    about = msgspec.json.decode(base64.urlsafe_b64decode(account + "=="))["nats"]
    assert about["limits"]["leaf"] == 2
    domain = cluster_id(CLUSTER)
    assert nats_jwt.take_from(LAPTOP.machine, domain) in {
        each.get("local_subject") for each in about["imports"]
    }
    for odd in ("10.0.0.1", "a b:1"):
        with pytest.raises(Malformed):
            lets.tell(BUILD.machine, replace(theirs.place(), leaves=odd), [])


@proves("node.nats-pass-newest")
def test_the_machine_with_the_authority_has_a_stamp_in_its_own_word_too(tmp_path: Path):
    keeper = cluster(tmp_path, SERVE)
    for machine in (BUILD.machine, LAPTOP.machine):
        keeper.tell(machine, PLACES[machine], [])
    told = keeper.told()
    said = servers_of(told.word.encode(), AUTHORITY.fleet)
    assert (said.stamp, said.machines) == (told.stamp, CLUSTER)
    assert said.stamp > keeper._said[BUILD.machine][1] > 0
    assert keeper.told() == told


@proves("node.nats-cluster-newest")
def test_a_newer_stamp_of_what_is_known_is_kept_and_begins_no_server_anew(tmp_path: Path):
    serve = NatsServe(serve="0.0.0.0:4222")
    theirs = cluster(tmp_path, serve, machine=BUILD.machine)
    told = cluster(tmp_path, SERVE).tell(BUILD.machine, PLACES[BUILD.machine], [])
    later = cluster(tmp_path, SERVE).tell(BUILD.machine, PLACES[BUILD.machine], [])
    theirs._take(told)
    changes = theirs.changes
    theirs._take(later)
    assert theirs.changes == changes
    again = cluster(tmp_path, serve, machine=BUILD.machine)
    with pytest.raises(Refused):
        again._take(told)


@proves("node.nats-cluster-newest")
def test_an_older_account_of_a_machine_replaces_no_newer_one(tmp_path: Path):
    keeper = cluster(tmp_path, SERVE)
    theirs = cluster(tmp_path, NatsServe(serve="0.0.0.0:4222"), machine=BUILD.machine)
    old = keeper.tell(BUILD.machine, PLACES[BUILD.machine], [LAPTOP.machine])
    account = replace(old.accounts[LAPTOP.machine], serial=99)
    new = replace(old, accounts={LAPTOP.machine: account})
    theirs._take(replace(new, word=sign_servers(AUTHORITY, CLUSTER, digest(new)).decode()))
    theirs._take(old)
    assert theirs._told is not None
    assert theirs._told.accounts[LAPTOP.machine].serial == 99


@proves("node.nats-cluster-newest")
def test_who_says_an_older_word_keeps_nobody_from_the_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    keeper = cluster(tmp_path, SERVE)
    theirs = cluster(tmp_path, NatsServe(serve="10.0.0.1:4222"), machine=BUILD.machine)
    first = keeper.tell(BUILD.machine, PLACES[BUILD.machine], [])
    keeper.tell(LAPTOP.machine, PLACES[LAPTOP.machine], [])
    theirs._take(keeper.tell(BUILD.machine, PLACES[BUILD.machine], []))
    monkeypatch.setattr(
        Roster, "hubs", lambda _: [RECORDS[LAPTOP.machine], RECORDS[STUDIO.machine]]
    )

    async def ask(_daemon: Any, machine: str, _verb: str, asked: dict[str, Any]) -> Any:
        if machine == LAPTOP.machine:
            return {"ok": True, "value": msgspec.to_builtins(first)}
        place = Place(asked["address"], asked["routes"])
        told = keeper.tell(BUILD.machine, place, asked["machines"])
        return {"ok": True, "value": msgspec.to_builtins(told)}

    monkeypatch.setattr(question, "ask", ask)
    asyncio.run(theirs._ask())
    assert theirs._lacking() == []
    monkeypatch.setattr(Roster, "hubs", lambda _: [RECORDS[LAPTOP.machine]])
    with pytest.raises(Refused, match="older than what it knows"):
        asyncio.run(theirs._ask())


@proves("node.nats-cluster-told")
def test_a_server_believes_whom_its_own_machine_knows_and_speaks_with_the_keys_of_the_three(
    tmp_path: Path,
):
    told = tell(AUTHORITY, RECORDS[STUDIO.machine], RECORDS[BUILD.machine], RECORDS.values(), NOW,
                CLUSTER, PLACES)  # fmt: skip

    def written(live: dict[str, Any]) -> dict[str, Any]:
        return configuration(
            told,
            BUILD.machine,
            live,
            tmp_path,
            listen="0.0.0.0:4222",
            routes="0.0.0.0:6222",
            tls=True,
        )

    whole = written(RECORDS)
    assert whole["jetstream"]["sync_interval"] == "always"
    assert whole["cluster"]["tls"]["verify"] is True
    assert set(whole["cluster"]["tls"]["pinned_certs"]) == set(map(pin_of, RECORDS.values()))
    assert len(whole["cluster"]["routes"]) == 2
    less = written({m: r for m, r in RECORDS.items() if m != LAPTOP.machine})
    key = told.accounts[LAPTOP.machine].key
    assert key in whole["resolver_preload"]
    assert key not in less["resolver_preload"]
    assert pin_of(RECORDS[LAPTOP.machine]) not in less["cluster"]["tls"]["pinned_certs"]
    assert len(less["cluster"]["routes"]) == 1
    newer = RECORDS | {LAPTOP.machine: SimpleNamespace(serial=99, key=RECORDS[LAPTOP.machine].key)}
    assert key not in written(newer)["resolver_preload"]
    assert whole["jetstream"]["store_dir"] != str(tmp_path / "store")
    assert isinstance(msgspec.convert(msgspec.to_builtins(told), Answer), Answer)


@proves("node.nats-cluster-moves")
def test_what_a_server_kept_alone_is_at_the_cluster_of_which_it_is_one_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(nats_client, "ANSWER_S", 3.0)
    alone = tell(AUTHORITY, RECORDS[STUDIO.machine], RECORDS[STUDIO.machine], RECORDS.values(), NOW)
    folder, program = tmp_path / STUDIO.machine[:8], nats_server()
    gave: list[str] = []

    async def scenario(servers: Servers, *, fails: bool) -> None:
        async def give(address: str) -> None:
            gave.append(address)
            jwt = nats_jwt.keeper_pass(AUTHORITY, RECORDS[STUDIO.machine])
            old = NatsClient("it", "", lambda: servers.login(STUDIO, jwt, address))
            new = servers.keeper()
            await old.give_all(new)
            await old.close()
            await new.close()
            if fails:
                raise Broken("cut")

        await servers.keep_boxes()
        await move(program, folder, alone, STUDIO.machine, RECORDS, give)

    # What lies there was acknowledged by the server alone, which was killed after that.
    written = configuration(
        alone, STUDIO.machine, RECORDS, folder, listen="127.0.0.1:0", routes="", tls=False
    )
    told = {k: written[k] for k in ("operator", "system_account", "resolver", "resolver_preload")}
    folder.mkdir()
    with NatsServer(folder, **told) as server:
        run(leave_alone(server, tmp_path))
    with Servers(tmp_path) as servers:
        with pytest.raises(Broken, match="cut"):
            run(scenario(servers, fails=True))
        assert (folder / "store").exists()
        run(scenario(servers, fails=False))
        assert not (folder / "store").exists()
        run(scenario(servers, fails=False))
        assert len(gave) == 2

        async def taken() -> None:
            async with servers.posts() as posts:
                found = await posts[LAPTOP.machine].take()
                # Moved twice, and there once.
                assert sorted(each.body for each in found) == [b"%d" % i for i in range(9)]

        run(taken())


@proves("node.nats-cluster-moves")
def test_a_mailbox_that_is_full_there_keeps_no_other_from_being_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(nats_client, "MAILBOX_BYTES_MAX", 5_000)

    async def scenario(old_url: str, new_url: str) -> None:
        old, new = (
            NatsClient("it", "", lambda url=url: Login((url,), {})) for url in (old_url, new_url)
        )
        await old.keep_boxes(["a" * 64, "b" * 64])
        await new.keep_boxes(["a" * 64, "b" * 64])
        async with old._reached() as here, new._reached() as there:
            for client, number in ((there, n) for n in range(100)):
                with contextlib.suppress(APIError):
                    subject = f"muster.box.{'a' * 64}.{'c' * 64}"
                    await client.jetstream().publish(subject, b"%300d" % number)
            for box in ("a", "b"):
                await here.jetstream().publish(f"muster.box.{box * 64}.{'c' * 64}", b"x" * 300)
            await old.give_all(new)
            found = await there.jetstream().stream_info(f"MUSTER_BOX_{'b' * 64}")
            assert found.state.messages == 1
        await old.close()
        await new.close()

    with NatsServer(tmp_path / "old") as old, NatsServer(tmp_path / "new") as new:
        run(scenario(old.url, new.url))


async def leave_alone(server: NatsServer, folder: Path) -> None:
    """Nine packets for the laptop, as the build machine's daemon leaves them."""
    none: Any = None
    jwt = nats_jwt.keeper_pass(AUTHORITY, RECORDS[STUDIO.machine])
    sign = STUDIO.signer("nats").sign
    login = nats.login(nats.Pass(jwt, server.url), sign, lambda: none)
    keeper = NatsClient("it", "", lambda: login)
    await keeper.keep_boxes(RECORDS)
    await keeper.close()
    home = folder / "home"
    (home / "nats").mkdir(parents=True)
    shown = nats.Pass(nats_jwt.pass_of(AUTHORITY, RECORDS[BUILD.machine]), server.url)
    (home / nats.PASS).write_bytes(msgspec.json.encode(shown))
    visitor = Visitor(BUILD.machine, home, unexpected, BUILD.signer("nats").sign, lambda: none)
    post = nats.open_channel(nats.Options(place="studio"), visitor)
    for number in range(9):
        await post.put(b"%d" % number, to=LAPTOP.machine)
    await post.close()
