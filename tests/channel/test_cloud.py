"""A bucket as a mailbox: what a real store keeps, and what anything in its place does to us."""

import asyncio
import hashlib
import random
import ssl
import threading
from typing import Any
from urllib.parse import quote_plus

import pytest
from tests.channel import store as stores
from tests.channel.authority import TestAuthority
from tests.channel.rigs import run
from tests.channel.store import ENV, KEY, SECRET, Asked, Store, cloud_post, refusal
from tests.promise import proves

from muster.channel import cloud, s3
from muster.channel.base import Visitor
from muster.channel.s3_answer import XML_BYTES_MAX
from muster.errors import Broken, Exhausted, Malformed, MusterError, Silent, Unreachable
from muster.limits import PACKET_BYTES_MAX
from muster.node.host import clock as clocks


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path) as store:
        yield store


def name_of(raw: bytes) -> str:
    return f"{hashlib.sha256(raw).hexdigest()}.mp"


def somebody(store: Store) -> s3.Bucket:
    """Another one who may write there, and does what it likes."""
    keys = s3.Keys(KEY, SECRET)
    at = s3.where(store.place)
    return s3.Bucket(at, "us-east-1", lambda: keys, lambda: clocks.read().wall_ms, plain=False)


async def failure_of(work: Any) -> MusterError:
    """What it fails with; nobody's keys are in it, nor what a store says of its own accord."""
    with pytest.raises(MusterError) as failed:
        await work
    assert not isinstance(failed.value, Malformed)
    for secret in (KEY, SECRET, "Signature="):
        assert secret not in f"{failed.value} {failed.value.__cause__!r}"
    return failed.value


@proves("channel.cloud-one-request")
def test_a_packet_costs_one_request_and_its_name_is_its_hash(store):
    async def main() -> None:
        post = cloud_post(store, "older")
        await post.put(b"x", to="far")
        await post.put(b"x", to="far")
        key = f"/shared/fleet/far/{name_of(b'x')}"
        assert store.gate.asked == [f"PUT {key}"] * 2
        assert [each.name for each in store.box("far").iterdir()] == [name_of(b"x")]
        await post.close()

    run(main())


@proves("channel.cloud-odd-objects")
def test_foreign_replaced_and_huge_objects_are_passed_over_and_read_once(store):
    counted: list[str] = []

    async def main() -> None:
        post = cloud_post(store, "far", lambda what, error: counted.append(what))
        other, raw = somebody(store), random.Random(1).randbytes(1000)
        for name in ("readme", "sub/" + name_of(b"1"), name_of(b"2")[:-1], "." + name_of(b"3")):
            await other.put(f"fleet/far/{name}", b"1")
        await other.put(f"fleet/far/{name_of(b'replaced')}", b"something else")
        await other.put(f"fleet/far/{name_of(b'huge')}", b"x" * (PACKET_BYTES_MAX + 1))
        await other.put(f"fleet/far/{name_of(raw)}", raw)
        store.gate.asked.clear()
        for _ in range(3):
            assert [each.body for each in await post.take()] == [raw]
        gets = [each for each in store.gate.asked if each.startswith("GET /shared/fleet")]
        assert len(gets) == 3 + 1
        # Put in its place between the list and the reading: more than may be, and other than was.
        for body in (b"x" * (4 * PACKET_BYTES_MAX), b"y" * 1000):

            def replaces(asked: Asked, body: bytes = body) -> bytes | None:
                if asked.command != "GET" or "list-type" in asked.path:
                    return None
                return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

            again = cloud_post(store, "far", lambda what, error: counted.append(what))
            store.gate.fault = replaces
            assert await again.take() == []
            store.gate.fault = None
            assert await again.take() == [], "as it was listed it was no packet"
            await again.close()
        assert counted == ["unread"] * 2
        await post.ack([name_of(raw)[:-3], "../../x", ""])
        assert await post.take() == []
        await post.close()
        other.close()

    run(main())


@proves("channel.cloud-odd-objects")
def test_any_number_of_objects_is_gone_through_look_by_look(store, monkeypatch):
    monkeypatch.setattr(s3, "LISTED_MAX", 7)
    monkeypatch.setattr(cloud, "_READ_MAX", 10)
    monkeypatch.setattr(cloud, "_PAGES_MAX", 3)
    monkeypatch.setattr(cloud, "_PASSED_OVER_MAX", 16)
    monkeypatch.setattr(cloud, "URGENT_S", 0.01)

    async def main() -> None:
        post, near = cloud_post(store, "far", deadline_s=86_400), cloud_post(store, "near")
        other = somebody(store)
        for number in range(60):
            await other.put(f"fleet/far/{name_of(b'%d' % number)}", b"something else")
        sent = [b"good %d" % number for number in range(8)]
        for raw in sent:
            await near.put(raw, to="far")
        found: set[bytes] = set()
        looks = 0
        while found != set(sent):
            store.gate.asked.clear()
            taken = await post.take()
            assert len(store.gate.asked) <= 3 + 10 + 2
            found |= {each.body for each in taken}
            looks += 1
            if not taken:
                await post.news(urgent=False)
        assert looks < 30
        for each in (post, near, other):
            closed = each.close()
            if closed is not None:
                await closed

    run(main())


@proves("channel.post-fair")
def test_a_machine_has_a_list_of_its_own_where_one_list_does_not_hold_all(store, monkeypatch):
    monkeypatch.setattr(s3, "LISTED_MAX", 7)

    async def main() -> None:
        far = cloud_post(store, "far")
        writers = {name: cloud_post(store, name) for name in ("near", "third", "older")}
        for name in ("near", "older"):
            for number in range(30):
                await writers[name].put(f"{name} {number}".encode(), to="far")
        for number in range(30):
            raw = b"litter %d" % number
            hint, sha256 = f"{number:x}{number % 7:x}" * 8, hashlib.sha256(raw).hexdigest()
            (store.box("far") / f"of-{hint[:16]}-{hint[:16]}-{sha256}.mp").write_bytes(raw)
        await writers["third"].put(b"of a third", to="far")
        found: set[bytes] = set()
        for look in range(90):
            taken = await far.take(8)
            await far.ack([each.id for each in taken])
            found |= {each.body for each in taken}
            assert b"of a third" in found or look < 1
            if len([each for each in found if not each.startswith(b"litter")]) == 61:
                break
        assert len([each for each in found if not each.startswith(b"litter")]) == 61
        for each in (far, *writers.values()):
            await each.close()

    run(main())


@proves("channel.cloud-odd-objects")
@pytest.mark.parametrize("code", [(403, "InvalidObjectState"), (400, ""), (500, "Lost"), (503, "")])
def test_an_object_that_cannot_be_read_keeps_no_other_from_being_read(store, code):
    async def main() -> None:
        post = cloud_post(store, "far", lambda *_: None)
        sent = sorted((b"%d" % number for number in range(3)), key=name_of)
        for raw in sent:
            await post.put(raw, to="far")
        bad = [name_of(raw) for raw in sent[:2]]
        store.gate.fault = lambda asked: (
            refusal(*code)
            if asked.command == "GET" and asked.path.rpartition("/")[2] in bad
            else None
        )
        found, said = [], []
        for _ in range(3):
            try:
                found += [each.body for each in await post.take()]
            except MusterError as error:
                said.append(error)
        assert sent[2] in found
        if code[0] < 500:
            assert found == [sent[2]] * 3, "what is refused ends no look"
            await post.ack([name_of(sent[2])[:-3]])
            assert str(code[0]) in str(await failure_of(post.take()))
        store.gate.fault = None
        found = []
        for _ in range(2):
            found += [each.body for each in await post.take()]
        assert set(found) >= set(sent[:2])
        await post.close()

    run(main())


def xml(body: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def listing(*keys: str) -> bytes:
    """What a store lists that was asked for names as forms write them."""
    one = "<Contents><Key>{}</Key><Size>1</Size></Contents>"
    held = "".join(one.format(quote_plus(key)) for key in keys)
    kind = "<EncodingType>url</EncodingType>"
    return xml(f"<ListBucketResult>{kind}{held}</ListBucketResult>")


@proves("channel.cloud-odd-objects")
def test_a_name_that_xml_cannot_hold_keeps_no_other_from_being_read(store):
    odd = "fleet/far/a\x01 +%2F&ä"

    async def main() -> None:
        post = cloud_post(store, "far")
        await post.put(b"x", to="far")
        store.gate.fault = lambda asked: (
            listing(odd, f"fleet/far/{name_of(b'x')}")
            if "list-type=2" in asked.path and "encoding-type=url" in asked.path
            else None
        )
        assert [each.body for each in await post.take()] == [b"x"]
        assert (await post._store.list("fleet/far/")).objects[0].key == odd
        await post.close()

    run(main())


@proves("channel.cloud-odd-objects")
def test_names_so_long_that_a_list_is_more_than_is_read_are_listed_in_less(store):
    large = xml("<ListBucketResult>" + "x" * XML_BYTES_MAX + "</ListBucketResult>")

    async def main() -> None:
        post = cloud_post(store, "far")
        await post.put(b"x", to="far")
        store.gate.fault = lambda asked: large if "max-keys=1000" in asked.path else None
        assert [each.body for each in await post.take()] == [b"x"]
        await post.close()

    run(main())


LAUGHS = (
    '<!DOCTYPE a [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
    "<ListBucketResult><IsTruncated>&b;</IsTruncated></ListBucketResult>"
)
ODD = {
    "a document type": xml(LAUGHS),
    "depth": xml("<ListBucketResult>" + "<a>" * 5000 + "</a>" * 5000 + "</ListBucketResult>"),
    "no xml": xml("<html><p>welcome"),
    "another document": xml("<html></html>"),
    "a page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\nhello",
    "no http": b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a length without limit": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    "a piece that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000,
    "a redirect": b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "fields without end": xml("<ListBucketResult>" + "<a/>" * 30_000 + "</ListBucketResult>"),
}


@proves("channel.cloud-bounded")
@pytest.mark.parametrize("what", ODD)
def test_what_is_no_object_store_is_said_and_nothing_of_it_is_followed(store, what):
    async def main() -> None:
        post = cloud_post(store, "far")
        store.gate.fault = lambda _: ODD[what]
        assert type(await failure_of(post.take())) is Broken
        assert all(each.startswith(("GET /shared", "PUT /shared")) for each in store.gate.asked)
        store.gate.fault = None
        await post.put(b"x", to="far")
        assert len(await post.take()) == 1
        await post.close()

    run(main())


@proves("channel.cloud-bounded")
@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_without_end_is_given_up(store, chunked):
    sent = 0

    def endless(asked: Asked) -> bytes:
        nonlocal sent
        kind = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        asked.wfile.write(b"HTTP/1.1 200 OK\r\n%s\r\n" % kind)
        part = b"x" * 65_536
        while not asked.server.gate.over.is_set():
            asked.wfile.write(b"10000\r\n%s\r\n" % part if chunked else part)
            sent += len(part)
        return b""

    async def main() -> None:
        post = cloud_post(store, "far")
        store.gate.fault = endless
        assert type(await failure_of(post.take())) is Broken
        await post.close()

    run(main())
    # Sockets of this computer take some more than was read.
    assert sent < 32 * XML_BYTES_MAX


REFUSALS = [
    (refusal(403, "AccessDenied"), Broken, "refuses this machine (403 AccessDenied): mend cloud.env"),
    (refusal(403, "SignatureDoesNotMatch"), Broken, "(403 SignatureDoesNotMatch)"),
    (refusal(403, "RequestTimeTooSkewed"), Broken, "RequestTimeTooSkewed): this machine's is wrong"),
    (refusal(400, "AccessDenied", "Date: Fri, 27 Nov 2015 20:13:55 GMT\r\n"), Broken, " s ahead; set"),
    (refusal(404, "NoSuchBucket"), Broken, "there is no bucket shared at "),
    (refusal(403, "QuotaExceeded"), Exhausted, "is full (403 QuotaExceeded)"),
    (refusal(507, "\x1b[2J"), Exhausted, "is full (507)"),
    (refusal(503, "SlowDown"), Unreachable, "does not work now (503 SlowDown)"),
    (refusal(500, ""), Unreachable, "does not work now (500)"),
    (refusal(429, ""), Unreachable, "does not work now (429)"),
    (refusal(301, "PermanentRedirect"), Broken, "is elsewhere (301 PermanentRedirect)"),
    (b"", Unreachable, "cannot be reached (it hung up)"),
]  # fmt: skip


@proves("channel.cloud-says-why")
@pytest.mark.parametrize(("answer", "kind", "words"), REFUSALS, ids=range(len(REFUSALS)))
def test_each_refusal_says_whose_it_is_and_no_secret(store, answer, kind, words):
    async def main() -> None:
        post = cloud_post(store, "near")
        store.gate.fault = lambda _: answer
        for work in (post.put(b"x", to="far"), post.take()):
            error = await failure_of(work)
            assert type(error) is kind
            assert words in str(error)
            assert "\x1b" not in str(error)
        await post.close()

    run(main())


@proves("channel.cloud-says-why")
def test_a_real_store_refuses_a_wrong_key_a_wrong_clock_and_a_bucket_that_is_not_there(store):
    async def main() -> None:
        read = clocks.read
        away, hour = store.place.replace("/shared/", "/absent/"), 3_600_000
        for place, env, off_ms, words in (
            (store.place, ENV | {"AWS_SECRET_ACCESS_KEY": "x" * 20}, 0, "SignatureDoesNotMatch"),
            (store.place, ENV | {"AWS_ACCESS_KEY_ID": "x" * 20}, 0, "InvalidAccessKeyId"),
            (store.place, ENV, -hour, "RequestTimeTooSkewed"),
            (store.place, {}, 0, "gives no AWS_ACCESS_KEY_ID of use"),
            (store.place, ENV | {"AWS_SESSION_TOKEN": "a\r\nhost: b"}, 0, "no AWS_SESSION_TOKEN"),
            (away, ENV, 0, "there is no bucket absent"),
        ):
            visitor = Visitor(
                "near", store.folder, pytest.fail, variables=lambda _, env=env: env,
                wall_ms=lambda off_ms=off_ms: read().wall_ms + off_ms,
            )  # fmt: skip
            post = cloud.open_channel(cloud.Options(place=place), visitor)
            error = await failure_of(post.put(b"x", to="far"))
            assert isinstance(error, Broken)
            assert words in str(error)
            await post.close()

    run(main())


@proves("channel.cloud-halves")
def test_a_store_that_ends_in_the_middle_leaves_nothing_and_is_asked_again(store):
    async def main() -> None:
        post, far = cloud_post(store, "near"), cloud_post(store, "far")
        raw = random.Random(2).randbytes(PACKET_BYTES_MAX)

        def half(asked: Asked) -> bytes:
            asked.rfile.read(PACKET_BYTES_MAX // 2 if asked.command == "PUT" else 0)
            return b""

        store.gate.fault = half
        assert isinstance(await failure_of(post.put(raw, to="far")), Unreachable)
        store.gate.fault = lambda asked: (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n<List"
            if asked.command == "GET"
            else None
        )
        await post.put(raw, to="far")
        assert isinstance(await failure_of(far.take()), Unreachable)
        store.gate.fault = None
        # What rested meanwhile, and was hung up on, is dialled again without a word.
        assert [each.body for each in await far.take()] == [raw]
        await post.close()
        await far.close()

    run(main())


@proves("channel.place-hangs")
def test_a_store_that_hangs_keeps_nothing_but_who_asks_it(store, monkeypatch):
    monkeypatch.setattr(s3, "REQUEST_S", 1.0)

    async def main() -> None:
        post = cloud_post(store, "near")
        store.gate.fault = stores.hang
        puts = [asyncio.ensure_future(post.put(b"%d" % n, to="far")) for n in range(3)]
        assert isinstance(await failure_of(post.take()), Silent)
        for each in puts:
            assert isinstance(await failure_of(each), Silent)
        waiting = asyncio.ensure_future(post.take())
        await asyncio.sleep(0)
        await post.close()
        waiting.cancel()

    threads = threading.active_count()
    run(main())
    assert threading.active_count() <= threads + 8


@proves("channel.place-hangs")
def test_of_what_rested_while_a_store_fell_silent_nothing_is_waited_for_again(store, monkeypatch):
    async def main() -> None:
        post = cloud_post(store, "near")
        # The first makes the bucket's folders, which this store cannot do for several at once.
        await post.put(b"first", to="far")
        await asyncio.gather(*(post.put(b"%d" % n, to="far") for n in range(4)))
        assert len(post._store._idle) > 1
        monkeypatch.setattr(s3, "REQUEST_S", 0.5)
        store.gate.fault = stores.hang
        assert isinstance(await failure_of(post.take()), Silent)
        assert not post._store._idle
        await post.close()

    run(main())


@proves("channel.cloud-line")
def test_large_packets_go_one_at_a_time_and_hold_up_no_small_one(store):
    lock, under_way, most = threading.Lock(), [0], [0]
    small, came = threading.Event(), threading.Event()

    def counts(asked: Asked) -> None:
        if int(asked.headers["content-length"]) < 1000:
            small.set()
            return
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        came.set()
        small.wait()
        with lock:
            under_way[0] -= 1

    async def main() -> None:
        post, rng = cloud_post(store, "near"), random.Random(3)
        # The store of the tests cannot make one folder twice at once.
        await post.put(b"first", to="far")
        store.gate.fault = counts
        large = [post.put(rng.randbytes(100_000), to="far") for _ in range(6)]
        puts = [asyncio.ensure_future(each) for each in large]
        await asyncio.to_thread(came.wait)
        await post.put(b"small", to="far")
        await asyncio.gather(*puts)
        assert most[0] == 1
        await post.close()

    run(main())


@proves("channel.cloud-private")
def test_plain_http_goes_to_no_address_but_a_private_one_unless_somebody_says_so(monkeypatch):
    for address, near in {
        "127.0.0.1": True, "::1": True, "10.1.2.3": True, "192.168.1.1": True, "fd00::1": True,
        "100.64.1.1": True, "::ffff:10.0.0.1": True, "fe80::1%eth0": True, "8.8.8.8": False,
        "::ffff:8.8.8.8": False, "2606:4700::1111": False, "224.0.0.1": False, "0.0.0.0": False,
    }.items():  # fmt: skip
        assert s3._is_near((address, 80)) is near, address
    assert not s3._is_near(None)

    async def main() -> None:
        asked: list[bytes] = []

        async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.read(100))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(answers, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setattr(s3, "_is_near", lambda _: False)
        for plain in (False, True):
            at = s3.where(f"http://127.0.0.1:{port}/shared")
            bucket = s3.Bucket(at, "x", lambda: s3.Keys("a", "b"), lambda: 0, plain=plain)
            if plain:
                await bucket.put("a", b"")
            else:
                with pytest.raises(Broken, match="write https://"):
                    await bucket.put("a", b"")
            bucket.close()
        server.close()
        await server.wait_closed()
        assert [each[:13] for each in asked if each] == [b"PUT /shared/a"]

    run(main())


@proves("channel.cloud-private")
def test_who_does_not_prove_its_name_hears_nothing_of_who_asks(tmp_path):
    _, shown = TestAuthority("somebody").issue("store")
    for name, pem in (("cert", shown.cert_pem), ("key", shown.key_pem)):
        (tmp_path / name).write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")

    async def main() -> None:
        heard: list[bytes] = []

        async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(100))
            writer.close()

        server = await asyncio.start_server(answers, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        at = s3.where(f"https://127.0.0.1:{port}/shared")
        keys = s3.Keys(KEY, SECRET)
        bucket = s3.Bucket(at, "x", lambda: keys, lambda: clocks.read().wall_ms, plain=True)
        error = await failure_of(bucket.put("a", b""))
        assert isinstance(error, Broken)
        assert "does not prove its name" in str(error)
        bucket.close()
        server.close()
        await server.wait_closed()
        assert not any(heard)

    run(main())


@proves("channel.cloud-tidy")
@pytest.mark.parametrize("knows", [True, False, "others"])
def test_what_is_old_is_removed_by_the_store_or_by_who_put_it_there(store, monkeypatch, knows):
    rules: list[bytes] = [
        b"<LifecycleConfiguration><Rule><ID>mine</ID></Rule></LifecycleConfiguration>"
    ]
    if knows is True:
        rules.clear()

    def lifecycle(asked: Asked) -> bytes | None:
        if not asked.path.endswith("?lifecycle="):
            return None
        if knows is False:
            return refusal(501, "NotImplemented")
        if asked.command == "PUT":
            rules[:] = [asked.rfile.read(int(asked.headers["content-length"]))]
            assert asked.headers["content-md5"]
            return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        return xml(rules[0].decode()) if rules else refusal(404, "NoSuchLifecycleConfiguration")

    async def main() -> None:
        now_ms = clocks.read().wall_ms
        later = [0]
        visitor = Visitor(
            "near",
            store.folder,
            pytest.fail,
            variables=lambda _: ENV,
            wall_ms=lambda: now_ms + later[0],
        )
        post = cloud.open_channel(cloud.Options(place=store.place), visitor)
        store.gate.fault = lifecycle
        await post.put(b"old", to="far")
        assert await post.take() == []
        assert (store.box("far") / name_of(b"old")).exists(), "it is not old yet"
        asked = len(store.gate.asked)
        assert await post.take() == []
        assert len(store.gate.asked) == asked + 1, "it is looked at once in a day"
        if knows is True:
            assert b"<Prefix>fleet/</Prefix>" in rules[0]
            assert b"<Days>7</Days>" in rules[0]
        elif knows == "others":
            assert b"<ID>mine</ID>" in rules[0], "nobody's rules are replaced"
        # Eight days, for us: the store signs by its own clock, and so it is asked as of now.
        old_s = cloud.KEPT_DAYS
        monkeypatch.setattr(cloud, "KEPT_DAYS", -1)
        post._tidy_s = None
        assert await post.take() == []
        assert (store.box("far") / name_of(b"old")).exists() is (knows is True)
        monkeypatch.setattr(cloud, "KEPT_DAYS", old_s)
        await post.close()

    run(main())


@proves("channel.cloud-tidy")
def test_what_is_old_of_one_machine_goes_after_one_look_and_then_of_the_next(store, monkeypatch):
    monkeypatch.setattr(cloud, "KEPT_DAYS", -1)
    rule = "<Rule><ID>muster</ID><Filter><Prefix>{}</Prefix></Filter><Status>{}</Status></Rule>"
    others = rule.format("other/", "Enabled") + rule.format("fleet/", "Disabled")

    async def main() -> None:
        post = cloud_post(store, "near")
        store.gate.fault = lambda asked: (
            xml(f"<LifecycleConfiguration>{others}</LifecycleConfiguration>")
            if "lifecycle" in asked.path
            else None
        )
        for number in range(3):
            await post.put(b"old", to=f"far{number}")
        left = []
        for _ in range(4):
            assert await post.take() == []
            boxes = (store.box(f"far{n}") / name_of(b"old") for n in range(3))
            left.append(sum(box.exists() for box in boxes))
        assert left == [2, 1, 0, 0]
        await post.close()

    run(main())


@proves("channel.cloud-place")
@pytest.mark.parametrize(
    "text",
    [
        "", "bucket", "s3://bucket", "ftp://h/bucket", "https://h", "https://h/", "https://h/B",
        "https://k:s@h/bucket", "https://h/bucket?x=1", "https://h/bucket/../x", "https://h/bu cket",
        "https://h/bucket//x", "https://h:0/bucket", "https://h:99999/bucket", "https://h/bucket#x",
        "https://h/bucket/" + "x" * 300, "https://h\\@g/bucket", "https://[::1/bucket",
        "https://a..b/bucket", f"https://{'a' * 64}.b/bucket",
    ],
)  # fmt: skip
def test_a_place_that_is_no_bucket_is_refused(text: str):
    with pytest.raises(Malformed):
        cloud.Options().check_place(text)


@proves("channel.cloud-place")
def test_a_bucket_without_a_prefix_has_ours_so_that_no_rule_reaches_what_is_not_ours():
    at = s3.where("https://s3.eu-central-1.amazonaws.com/my-bucket")
    assert (at.prefix, at.port, at.address) == ("muster", 443, "s3.eu-central-1.amazonaws.com")
    at = s3.where("http://[::1]:9000/my-bucket/a/b/")
    assert (at.prefix, at.port, at.address, at.host) == ("a/b", 9000, "[::1]:9000", "::1")
    assert repr(s3.Keys("id", "secret")) == "Keys(…)"


@proves("channel.post-news")
def test_a_store_is_asked_soon_while_somebody_speaks_and_else_ever_more_seldom(store, monkeypatch):
    waits: list[float] = []

    class Waits:
        def __init__(self, wait_s: float) -> None:
            waits.append(wait_s)

        async def __aenter__(self) -> None:
            raise TimeoutError

        async def __aexit__(self, *_: object) -> None: ...

    async def main() -> None:
        post = cloud_post(store, "near", deadline_s=0)
        with monkeypatch.context() as fast:
            fast.setattr(cloud.asyncio, "timeout", Waits)
            await post.news(urgent=True)
            for _ in range(7):
                await post.news(urgent=False)
        assert waits == [3, 20, 40, 80, 160, 320, 600, 600]
        await post.close()

    run(main())


@proves("channel.post-news")
def test_who_leaves_something_after_a_quiet_looks_again_at_once(store):
    async def main() -> None:
        post = cloud_post(store, "near", deadline_s=3600)
        dozes = asyncio.create_task(post.news(urgent=False))
        await post.put(b"one", to="far")
        async with asyncio.timeout(60):
            await dozes
        # Who looks soon anyway is not woken once more by what it leaves.
        soon = asyncio.create_task(post.news(urgent=True))
        await post.put(b"two", to="far")
        await asyncio.sleep(0.05)
        assert not soon.done()
        soon.cancel()
        await post.close()

    run(main())
