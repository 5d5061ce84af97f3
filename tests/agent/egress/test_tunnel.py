"""What is said into a tunnel goes on when it is known to be for the host that was named."""

import pytest
from tests.agent.egress import hellos
from tests.promise import proves

from muster.agent.egress.tunnel import Tunnel
from muster.errors import Denied, Malformed


def passed(tunnel: Tunnel, said: bytes) -> bytes:
    return b"".join(tunnel.feed(bytes([each])) for each in said)


@proves("egress.tunnel-host")
@pytest.mark.parametrize("name", ["a.test", "A.TEST", "a.test."])
def test_tls_with_the_host_that_was_named_goes_on_unchanged(name):
    said = hellos.hello(name) + hellos.records(bytes(99), kind=23) + b"anything"
    assert Tunnel("a.test", 443).feed(said) == said
    for port in (443, 5000):
        tunnel = Tunnel("a.test", port)
        assert passed(tunnel, said[:50]) == b""
        assert passed(tunnel, said[50:]) == said
        assert not tunnel.waits


@proves("egress.tunnel-host")
@pytest.mark.parametrize("port", [443, 8443, 5000])
@pytest.mark.parametrize(
    "said",
    [
        hellos.hello("evil.test"),
        hellos.hello("xa.test"),
        hellos.hello("a.test.evil.test"),
        hellos.hello("a.test..") ,
        hellos.hello("127.0.0.1"),
        hellos.hello("a.test\0"),
        hellos.records(hellos.message()),
        b"\x16\x03\x01\x00\x00",
    ],
)  # fmt: skip
def test_tls_with_another_host_or_none_goes_nowhere(port, said):
    with pytest.raises((Denied, Malformed)):
        passed(Tunnel("a.test", port), said)
    with pytest.raises((Denied, Malformed)):
        Tunnel("a.test", port).feed(said)


@proves("egress.tunnel-host")
def test_a_second_hello_for_another_host_goes_nowhere():
    tunnel = Tunnel("a.test", 443)
    first = hellos.hello("a.test")
    assert tunnel.feed(first) == first
    with pytest.raises(Denied):
        tunnel.feed(hellos.CHANGE_CIPHER + hellos.hello("evil.test"))


@proves("egress.tunnel-host")
@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\0"])
def test_at_a_port_of_tls_nothing_else_is_spoken(said):
    with pytest.raises(Malformed, match="not TLS"):
        passed(Tunnel("a.test", 443), said)


@proves("egress.tunnel-host")
@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        b"\r\n\nGET / HTTP/1.1\r\n",
        b"x http://evil.test/\tHTTP/1.0\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\v/\fHTTP/1.1\r\n",
        b"get /\xc3\xa4 http/1.1\r\n",
    ],
)
def test_plain_http_goes_through_no_tunnel(said):
    for each in (passed, Tunnel.feed):
        with pytest.raises(Denied, match="plain http"):
            each(Tunnel("a.test", 8080), said)
    with pytest.raises(Denied, match="plain http"):
        Tunnel("a.test", 80)


@proves("egress.tunnel-host")
@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"EHLO a.test\r\n",
        b"0032git-upload-pack /a\0host=a.test\0",
        b"x" * 9000,
        b"PING\r\n",
    ],
)
def test_what_is_neither_tls_nor_http_goes_on_at_other_ports(said):
    more = b"GET / HTTP/1.1\r\n"
    assert passed(Tunnel("a.test", 9418), said + more) == said + more
    tunnel = Tunnel("a.test", 9418)
    assert not tunnel.waits
    assert tunnel.feed(said) == said


@proves("egress.tunnel-host")
def test_a_line_without_an_end_goes_on_when_no_more_comes():
    tunnel = Tunnel("a.test", 9418)
    assert tunnel.feed(b"QUIT") == b""
    assert tunnel.end() == b"QUIT"
    assert tunnel.end() == b""
    tunnel.feed(b"GET / HTTP/1.1")
    again = Tunnel("a.test", 9418)
    again.feed(b"GET / HTTP/1.1")
    with pytest.raises(Denied, match="plain http"):
        again.end()
