"""What may stand for a host that a sandbox reaches, and what covers what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves

from muster.task.host_rule import HostRule, covers, host_refusal, host_rule, network_refusal
from muster.task.host_rule import uncovered as left

LABEL = st.sampled_from(["a", "b", "www", "xn--bcher-kva", "a-b", "example", "org", "com"])
NAME = st.lists(LABEL, min_size=2, max_size=5).map(".".join)
RULE = st.builds(HostRule, NAME, st.sampled_from([22, 443, 8443]), st.booleans())


@proves("openings.said")
@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("api.example.net", HostRule("api.example.net")),
        ("api.example.net:443", HostRule("api.example.net")),
        ("git.example.org:22", HostRule("git.example.org", 22)),
        ("*.example.org", HostRule("example.org", below=True)),
        ("*.example.org:8443", HostRule("example.org", 8443, below=True)),
        ("git", HostRule("git")),
        ("xn--bcher-kva.example", HostRule("xn--bcher-kva.example")),
        ("1e100.net", HostRule("1e100.net")),
        ("a.0x1g", HostRule("a.0x1g")),
    ],
)
def test_a_host_is_named_in_one_form(text, rule):
    assert host_refusal(text) == ""
    assert host_rule(text) == rule
    assert host_rule(str(rule)) == rule


@proves("openings.said")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("https://api.example.net/simple", "write api.example.net"),
        ("http://api.example.net", "write api.example.net:80"),
        ("ssh://git@github.com/x/y", "write github.com:22"),
        ("API.Example.net", "write api.example.net"),
        ("api.example.net.", "write api.example.net"),
        ("api.example.net/simple", "write api.example.net"),
        ("api.example.net:0443", "is no host's name"),
        ("user:secret@api.example.net", "write api.example.net"),
        (" api.example.net", "write api.example.net"),
        ("b\u00fccher.example", "begins with xn--"),
        ("pypi\u3002org", "begins with xn--"),
        ("*", "every host of the world"),
        ("*:443", "every host of the world"),
        ("*.com", "every host of the world under .com"),
        ("*.*.com", "a * elsewhere"),
        ("pypi.*", "a * elsewhere"),
        ("*api.example.net", "a * elsewhere"),
        ("api.example.net:0", "is no host's name"),
        ("api.example.net:65536", "ports are 1 to 65535"),
        ("api.example.net:99999", "ports are 1 to 65535"),
        ("api.example.net:https", "is no host's name"),
        ("127.0.0.1", "is an address"),
        ("127.1", "is an address"),
        ("2130706433", "is an address"),
        ("0x7f000001", "is an address"),
        ("0x7f.1", "is an address"),
        ("0177.0.0.1", "is an address"),
        ("a.0x", "is an address"),
        ("example.1", "is an address"),
        ("*.0.0.1", "is an address"),
        ("127.0.0.1:80", "is an address"),
        ("::1", "is an address"),
        ("[::1]:443", "is an address"),
        ("fe80::1%eth0", "is an address"),
        ("http://127.0.0.1/", "is no host's name"),
        ("localhost", "is the sandbox itself"),
        ("a.localhost:8080", "is the sandbox itself"),
        ("a..b", "is no host's name"),
        ("-a.org", "is no host's name"),
        ("a_b.org", "is no host's name"),
        ("a b.org", "is no host's name"),
        ("a.org\r\nb.org", "is no host's name"),
        ("a.org\x00", "is no host's name"),
        (f"{'a' * 64}.org", "is no host's name"),
        (".".join(["a" * 60] * 5), "longer than a host's name"),
    ],
)
def test_what_is_no_hosts_name_is_refused_with_what_to_write(text, says):
    assert says in host_refusal(text), host_refusal(text)


def test_one_word_may_also_be_none():
    assert network_refusal("none") == ""
    assert network_refusal("api.example.net") == ""
    for near in ("None", "off", "no", "false"):
        assert "write none" in network_refusal(near)
    assert host_refusal("none") == ""  # In a list it is a host's name like any other.


@given(st.text(max_size=40))
def test_what_is_taken_is_plain_text_that_is_read_the_same_again(text):
    if host_refusal(text):
        return
    assert text.isascii()
    assert text == text.lower()
    assert not set(text) - set("abcdefghijklmnopqrstuvwxyz0123456789-.*:")
    assert host_rule(str(host_rule(text))) == host_rule(text)


@given(RULE, RULE, RULE)
def test_what_covers_is_never_less(one, two, three):
    assert covers(one, one)
    if covers(one, two) and covers(two, three):
        assert covers(one, three)
    if covers(one, two) and covers(two, one):
        assert one == two
    # Whatever a covered rule names, the covering one names: a host below it stands for all.
    inside = HostRule(f"x.{two.name}" if two.below else two.name, two.port)
    assert not covers(one, two) or covers(one, inside)


@pytest.mark.parametrize(
    ("most", "rule", "is_covered"),
    [
        ("example.org", "example.org", True),
        ("example.org", "example.org:80", False),
        ("example.org", "a.example.org", False),
        ("*.example.org", "example.org", False),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "*.b.example.org", True),
        ("*.example.org", "*.example.org", True),
        ("*.example.org", "badexample.org", False),
        ("*.example.org", "example.org.evil.net", False),
        ("a.example.org", "*.example.org", False),
    ],
)
def test_a_name_covers_itself_and_a_star_what_is_below(most, rule, is_covered):
    assert covers(host_rule(most), host_rule(rule)) == is_covered
    assert (left([host_rule(most)], [host_rule(rule)]) == ()) == is_covered
