"""The way to a server over TLS and through proxies, with real certificates on loopback."""

import asyncio
import datetime as dt
import json
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.agent.gateway.stage import KEY, MESSAGE, Peer, staged, whole
from tests.promise import proves


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The file of a certificate for `localhost`, and the one with its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "ca.pem").write_bytes(pem)
    (folder / "both.pem").write_bytes(pem + secret)
    return folder


async def secure(folder, seen):
    """A server of a model over TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "both.pem")

    async def serve(reader, writer):
        peer = Peer(reader, writer)
        seen.append(await peer.request())
        await peer.send(whole())
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)


async def nothing(model):
    """No call comes without TLS."""
    raise AssertionError(model)


def port_of(server):
    return server.sockets[0].getsockname()[1]


@proves("gateway.way")
def test_a_certificate_that_the_machine_trusts_is_taken(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "ca.pem"))
    seen = []

    async def go():
        server = await secure(certificate, seen)
        async with server, staged(nothing, url=f"https://localhost:{port_of(server)}") as stage:
            return await stage.ask()

    status, _, body = asyncio.run(go())
    assert (status, json.loads(body)) == (200, MESSAGE)
    assert KEY in seen[0][0].decode()


@proves("gateway.way", "gateway.key-outside")
@pytest.mark.parametrize(("trusted", "host"), [(False, "localhost"), (True, "127.0.0.1")])
def test_one_that_it_does_not_trust_or_of_another_name_is_told_nothing(
    certificate, monkeypatch, trusted, host
):
    other = certificate / ("ca.pem" if trusted else "none.pem")
    if not trusted:
        other.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    monkeypatch.setenv("SSL_CERT_DIR", str(certificate / "nowhere"))
    seen = []

    async def go():
        server = await secure(certificate, seen)
        async with server, staged(nothing, url=f"https://{host}:{port_of(server)}") as stage:
            return await stage.ask(), await stage.told_of(1)

    (status, _, body), told = asyncio.run(go())
    assert status == 502
    assert "shows a certificate" in json.loads(body)["error"]["message"]
    assert told[0].ending == "unreachable"
    assert seen == []


class Proxy:
    """A proxy that joins, or does what it is told to."""

    def __init__(self, answer=b"HTTP/1.1 200 Joined\r\n\r\n"):
        self.answer, self.asked = answer, []

    async def serve(self, reader, writer):
        peer = Peer(reader, writer)
        head = await peer.until(b"\r\n\r\n")
        self.asked.append(head)
        if not head.startswith(b"CONNECT "):
            await peer.send(whole())
            writer.close()
            return
        await peer.send(self.answer)
        if b" 200 " not in self.answer:
            writer.close()
            return
        host, _, port = head.split(b" ")[1].partition(b":")
        there = await asyncio.open_connection(host.decode(), int(port))
        await asyncio.gather(_pipe(reader, there[1]), _pipe(there[0], writer))


async def _pipe(reader, writer):
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@proves("gateway.way")
def test_a_proxy_joins_the_way_and_sees_nothing_of_what_is_said(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "ca.pem"))
    seen, proxy = [], Proxy()

    async def go():
        server = await secure(certificate, seen)
        way = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        env = {"HTTPS_PROXY": f"http://me:pass@127.0.0.1:{port_of(way)}"}
        url = f"https://localhost:{port_of(server)}"
        async with server, way, staged(nothing, url=url, env=env) as stage:
            return await stage.ask(), port_of(server)

    (status, _, _), port = asyncio.run(go())
    assert status == 200
    assert proxy.asked[0].startswith(f"CONNECT localhost:{port} HTTP/1.1\r\n".encode())
    assert b"Basic bWU6cGFzcw==" in proxy.asked[0]
    assert KEY.encode() not in proxy.asked[0]
    assert len(seen) == 1


@proves("gateway.way")
@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 407 No\r\n\r\n", b"hello\r\n\r\n", b"", b"x" * 100_000, b"HTTP/1.1 200"]
)
def test_a_proxy_that_does_not_join_is_a_failure_that_names_it(answer):
    proxy = Proxy(answer)

    async def go():
        way = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        env = {"HTTPS_PROXY": f"http://me:pass@127.0.0.1:{port_of(way)}"}
        async with way, staged(nothing, url="https://model.invalid", env=env) as stage:
            return await stage.ask()

    status, _, body = asyncio.run(go())
    said = json.loads(body)["error"]["message"]
    assert status == 502
    assert "model.invalid is not reached (by the proxy 127.0.0.1:" in said
    assert said.endswith("it makes no way to the model.")
    assert "pass" not in said


@proves("gateway.way")
def test_a_model_without_tls_is_asked_for_by_its_whole_address():
    proxy = Proxy()

    async def go():
        way = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        env = {"http_proxy": f"http://127.0.0.1:{port_of(way)}"}
        async with way, staged(nothing, url="http://model.invalid:81/at", env=env) as stage:
            return await stage.ask()

    assert asyncio.run(go())[0] == 200
    assert proxy.asked[0].startswith(b"POST http://model.invalid:81/at/v1/messages HTTP/1.1\r\n")
