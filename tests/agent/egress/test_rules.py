"""What may be reached: names, ports and addresses."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves

from muster.agent.egress.rules import Rules, split_target
from muster.errors import Denied, Malformed
from muster.task.host_rule import host_refusal, host_rule

RULES = Rules.read(
    ["allowed.test", "git.allowed.test:8443", "*.below.test"], local=["nas.lan:3000"]
)


def lets(target: str) -> bool:
    try:
        RULES.check(*split_target(target))
    except (Malformed, Denied):
        return False
    return True


@proves("egress.names-only")
@pytest.mark.parametrize(
    "target",
    [
        "allowed.test:443",
        "ALLOWED.Test:443",
        "allowed.test.:443",
        "git.allowed.test:8443",
        "a.below.test:443",
        "a.b.below.test:443",
        "nas.lan:3000",
    ],
)
def test_what_a_rule_names_is_let_through(target):
    assert lets(target)


HOSTILE = [
    *("evil.test:443", "EVIL.test:443", "evil.test.:443", "allowed.test:22", "allowed.test:0"),
    *("127.0.0.1:443", "192.0.2.1:443", "[::1]:443", "::1:443", "[::ffff:127.0.0.1]:443"),
    *("2130706433:443", "0x7f000001:443", "127.1:443", "0177.0.0.1:443", "127.0.0.0x1:443"),
    *("1:443", "0:443", "0x:443", "127.0.0.1.:443", "[fe80::1%25eth0]:443", "0x7f.1:443"),
    *("evilallowed.test:443", "allowed.test.evil.test:443", "below.test:443", ".below.test:443"),
    *("xbelow.test:443", "*.below.test:443", "a..below.test:443", "allowed.test..:443"),
    *("evil.test\0.allowed.test:443", "evil.test\0allowed.test:443", "allowed.test:443\r\nX: y"),
    *("allowed.test@evil.test:443", "evil.test@allowed.test:443", "user:pw@allowed.test:443"),
    *("allowed.test:443 evil.test:443", "allowed\u3002test:443", "evil.test\\.allowed.test:443"),
    *("evil.test\t.allowed.test:443", "localhost:443", "localhost.:443", "evil%2etest:443"),
    *("a" * 300 + ".below.test:443", "a" * 64 + ".below.test:443", ":443", "", ":", "allowed.test"),
    *("allowed.test:-1", "allowed.test:+443", "allowed.test:0443", "allowed.test:443443443"),
    *(
        "allowed.test:65979",
        "allowed.test:4\u0664\u0664",
        "allowed.test: 443",
        "allowed.test:443:1",
    ),
    *("allowed.test\n:443", "-a.below.test:443", "a_b.below.test:443", "allowed.te\u017ft:443"),
    *("allowed.test:443/", "http://allowed.test:443", "//allowed.test:443", "#.below.test:443"),
]


@proves("egress.names-only")
@pytest.mark.parametrize("target", HOSTILE)
def test_no_other_name_and_no_spelling_is_let_through(target):
    assert not lets(target)


@proves("egress.names-only")
def test_the_letter_that_is_a_k_in_small_letters_is_none():
    kelvin = Rules.read(["kelvin.test"])
    with pytest.raises(Malformed):
        kelvin.check(*split_target("\u212aelvin.test:443"))
    kelvin.check(*split_target("Kelvin.test:443"))


@proves("egress.names-only")
def test_a_refusal_says_which_port_would_have_been_right_and_nothing_is_all():
    with pytest.raises(Denied, match="8443"):
        RULES.check("git.allowed.test", 443)
    with pytest.raises(Denied, match="is not among"):
        Rules.read([]).check("allowed.test", 443)


@proves("egress.names-only")
@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9.:*\[\]@%x-]{0,30}(test)?(:443)?"))
def test_whatever_is_asked_is_refused_in_a_sentence_or_is_in_the_list(target):
    try:
        host, port = split_target(target)
        RULES.check(host, port)
    except (Malformed, Denied):
        return
    listed = {("allowed.test", 443), ("git.allowed.test", 8443), ("nas.lan", 3000)}
    assert (host, port) in listed or (host.endswith(".below.test") and port == 443)


@proves("egress.names-only")
@given(st.ip_addresses(v=4))
def test_no_address_is_a_name_in_any_spelling(address):
    number, parts = int(address), str(address).split(".")
    spellings = [
        *(str(address), str(number), hex(number), hex(number).upper(), f"{address}."),
        ".".join(f"0{int(each):o}" for each in parts),
        ".".join(hex(int(each)) for each in parts),
        f"{parts[0]}.{number & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{hex(number & 0xFFFF)}",
        f"[::ffff:{address}]",
        f"::ffff:{address}",
    ]
    for each in spellings:
        with pytest.raises(Malformed):
            split_target(f"{each}:443")
        assert host_refusal(each)


# --- texts -------------------------------------------------------------------------------------


@proves("egress.rules-say-why")
def test_what_can_be_no_rule_is_refused_with_the_right_form_and_the_rest_is_as_it_was_written():
    with pytest.raises(Malformed, match=r"write api\.example\.com"):
        Rules.read(["https://api.example.com/v1"])
    with pytest.raises(Malformed, match="address"):
        Rules.read(["a.test"], local=["10.0.0.1"])
    assert str(Rules.read(["a.test", "*.b.test:8443"])) == "a.test:443, *.b.test:8443"


@proves("egress.rules-say-why")
@given(st.text(max_size=60) | st.from_regex(r"[a-zA-Z0-9.:*\[\]/@-]{0,40}"))
def test_a_host_that_may_be_named_is_the_one_that_is_let_through(text):
    if host_refusal(text) or (found := host_rule(text)).below:
        return
    assert split_target(str(found)) == (found.name, found.port)
    Rules([found]).check(found.name, found.port)


# --- addresses ---------------------------------------------------------------------------------


@proves("egress.addresses-public")
@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.0.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.5"),
        *("169.254.169.254", "100.100.100.200", "224.0.0.1", "255.255.255.255", "240.0.0.1"),
        *("192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "2002:7f00:1::", "2001:db8::1"),
        *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2001:0:7f00:1::", "fec0::1"),
        *("fd00:ec2::254", "not an address", "", "8.8.8.8 ", "2606:4700::1%1"),
    ],
)
def test_a_name_that_leads_to_no_public_address_is_refused(address):
    with pytest.raises(Denied, match="no public address"):
        RULES.addresses("allowed.test", 443, [address])
    # And beside one that is, it is left out.
    assert RULES.addresses("allowed.test", 443, [address, "8.8.8.8"]) == ["8.8.8.8"]


@proves("egress.addresses-public")
def test_public_addresses_are_let_in_their_order_and_once():
    found = ["2606:4700::1", "8.8.8.8", "64:ff9b::808:808", "2606:4700::1"]
    assert RULES.addresses("allowed.test", 443, found) == found[:3]


@proves("egress.addresses-public")
def test_what_the_owner_calls_local_leads_home_and_to_no_link_and_no_metadata():
    home = ["192.168.1.5", "127.0.0.1", "::1", "fd12::5", "100.64.0.9"]
    never = ["169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"]
    assert RULES.addresses("nas.lan", 3000, [*home, *never]) == home
    with pytest.raises(Denied):
        RULES.addresses("nas.lan", 3000, never)
    with pytest.raises(Denied):
        RULES.addresses("nas.lan", 443, home)


@proves("egress.addresses-public")
@given(st.ip_addresses())
def test_what_python_calls_private_is_never_let(address):
    text = str(address)
    try:
        RULES.addresses("allowed.test", 443, [text])
    except Denied:
        return
    in_v4 = ipaddress.ip_address(int(address) & 0xFFFFFFFF)
    assert address.is_global or (text.startswith("64:ff9b::") and in_v4.is_global)
    assert not address.is_multicast
