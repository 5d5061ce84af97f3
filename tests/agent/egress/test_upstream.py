"""The proxy that a machine itself goes through, as its environment says it."""

import base64

import pytest
from tests.promise import proves

from muster.agent.egress.upstream import Upstream, Upstreams
from muster.errors import Malformed


@proves("egress.upstream-silent")
def test_a_proxy_of_the_environment_is_read_and_shows_no_password():
    found = Upstream("http://me:s%40cret@proxy.test:8080/")
    assert (found.host, found.port) == ("proxy.test", 8080)
    assert base64.b64decode(found.opens.split()[2]) == b"me:s@cret"
    assert "cret" not in repr(found) + str(found)


@proves("egress.upstream-silent")
@pytest.mark.parametrize(
    "text",
    [
        "socks5://me:secret@proxy.test:1080",
        "https://me:secret@proxy.test",
        "http://me:secret@proxy.test:99999",
        "http://me:secret@proxy.test/path",
        "http://me:sec@ret@proxy.test",
        "http://me:secret@",
    ],
)
def test_a_proxy_that_cannot_be_gone_through_is_refused_without_its_password(text):
    with pytest.raises(Malformed) as refused:
        Upstreams({"https_proxy": text})
    assert "sec" not in str(refused.value)


@proves("egress.upstream-silent")
def test_which_proxy_is_gone_through_is_what_curl_would_take():
    plain = Upstreams({"http_proxy": "p.test:1", "HTTPS_PROXY": "s.test:2", "https_proxy": ""})
    assert plain.of("a.test", tunnel=False).port == 1
    assert plain.of("a.test", tunnel=True).port == 2
    every = Upstreams(
        {"ALL_PROXY": "http://[2001:db8::1]:3", "NO_PROXY": "lan, .home.test,*.x.test"}
    )
    assert every.of("a.test", tunnel=True).host == "2001:db8::1"
    for host in ("lan", "nas.lan", "home.test", "a.home.test", "x.test", "b.x.test"):
        assert every.of(host, tunnel=True) is None
    for host in ("wlan", "a-home.test", "lan.test"):
        assert every.of(host, tunnel=True) is not None
    assert Upstreams({"all_proxy": "p.test:1", "no_proxy": "*"}).of("a.test", tunnel=True) is None
    assert Upstreams({}).of("a.test", tunnel=True) is None


@proves("egress.upstream-silent")
def test_addresses_and_networks_may_be_left_out_of_it():
    some = Upstreams({"all_proxy": "p.test:1", "no_proxy": "10.0.0.0/8,192.0.2.1,a.test"})
    assert some.is_direct("10.1.2.3")
    assert some.is_direct("192.0.2.1")
    assert not some.is_direct("192.0.2.2")
    assert not some.is_direct("::1")
