"""What a spec asks, an agent needs and an owner allows, come to one decision."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.promise import proves

from muster.task.enclosure import (
    BY_DEFAULT,
    BY_FLEET,
    BY_OWNER,
    BY_SPEC,
    Decision,
    Doer,
    Here,
    Terms,
    decide,
)
from muster.task.host_path import is_of_host, lies_in
from muster.task.host_rule import HostRule, covers, host_rule

API = host_rule("api.example.net")
CLAUDE = Doer("claude", (API,))
SHELL = Doer("shell")
HERE = Here(home="/home/a", never=("/home/a/.muster",), protected=(".mcp.json", ".vscode"))
OPEN = Terms(read=("/opt/data", "~/sets"), write=("~/cache",))


def rules(*texts: str) -> tuple[HostRule, ...]:
    return tuple(map(host_rule, texts))


@proves("openings.decided", "openings.fails-closed")
@pytest.mark.parametrize(
    ("order", "doer", "terms", "here", "expected"),
    [
        # Who says nothing is enclosed, with what its agent needs.
        ({}, CLAUDE, Terms(), HERE, Decision(why=BY_DEFAULT, network=(API,))),
        ({}, SHELL, Terms(), HERE, Decision(why=BY_DEFAULT)),
        ({}, SHELL, Terms(default="off"), HERE, Decision(enclosed=False, why=BY_OWNER)),
        ({}, SHELL, Terms(default="off"), Here("no bwrap"), Decision(enclosed=False, why=BY_OWNER)),
        ({}, SHELL, Terms(memory_bytes=9, processes=3), HERE,
         Decision(why=BY_DEFAULT, memory_bytes=9, processes=3)),
        # Whatever asks for one has one, whatever the owner's default.
        ({"sandbox": "on"}, SHELL, Terms(default="off"), HERE, Decision(why=BY_SPEC)),
        ({"network": "none"}, CLAUDE, Terms(default="off"), HERE, Decision(why=BY_SPEC)),
        ({"paths": {"write": [".vscode/"]}}, SHELL, Terms(default="off"), HERE,
         Decision(why=BY_SPEC, free=(".vscode",))),
        # Hosts: the agent's and the spec's, within the owner's.
        ({"network": ["git.example.org:22"]}, CLAUDE, Terms(), HERE,
         Decision(why=BY_SPEC, network=(API, HostRule("git.example.org", 22)))),
        ({"network": ["api.example.net:443"]}, CLAUDE, Terms(), HERE,
         Decision(why=BY_SPEC, network=(API,))),
        ({"network": ["a.example.org"]}, CLAUDE, Terms(network=rules("*.example.org", "api.example.net")), HERE,
         Decision(why=BY_SPEC, network=(API, *rules("a.example.org")))),
        ({"network": ["git.lan:3000"]}, SHELL, Terms(local=rules("*.lan.example", "git.lan:3000")), HERE,
         Decision(why=BY_SPEC, network=rules("git.lan:3000"), local=rules("git.lan:3000"))),
        ({"network": ["git.lan:3000"]}, SHELL, Terms(network=(), local=rules("git.lan:3000")), HERE,
         Decision(why=BY_SPEC, network=rules("git.lan:3000"), local=rules("git.lan:3000"))),
        ({"network": "none"}, CLAUDE, Terms(network=()), HERE, Decision(why=BY_SPEC)),
        # Paths: the spec's, within the owner's.
        ({"paths": {"read": ["/opt/data/a", "~/cache/x"], "write": ["~/cache"]}}, SHELL, OPEN, HERE,
         Decision(why=BY_SPEC, read=("/opt/data/a", "/home/a/cache/x"), write=("/home/a/cache",))),
        ({"paths": {"read": "/opt/data/"}}, SHELL, OPEN, HERE, Decision(why=BY_SPEC, read=("/opt/data",))),
        # Without one: of a shell, by its spec, where the owner lets it.
        ({"sandbox": "off"}, SHELL, Terms(), HERE, Decision(enclosed=False, why=BY_SPEC)),
        ({"sandbox": "off"}, SHELL, Terms(), Here("no bwrap"), Decision(enclosed=False, why=BY_SPEC)),
        # Another fleet.
        ({}, CLAUDE._replace(foreign=True), Terms(default="off"), HERE, Decision(why=BY_FLEET, network=(API,))),
        ({"sandbox": "on"}, CLAUDE._replace(foreign=True), OPEN, HERE, Decision(why=BY_FLEET, network=(API,))),
        ({"network": "none"}, CLAUDE._replace(foreign=True), OPEN, HERE, Decision(why=BY_FLEET)),
    ],
)  # fmt: skip
def test_the_narrowest_wins(order, doer, terms, here, expected):
    assert decide(order, doer, terms, here) == expected


@proves("openings.decided", "openings.fails-closed")
@pytest.mark.parametrize(
    ("order", "doer", "terms", "here", "why"),
    [
        ({}, SHELL, Terms(), Here("bwrap is not installed"),
         "this machine cannot enclose it: bwrap is not installed"),
        ({"sandbox": "on"}, SHELL, Terms(default="off"), Here("x"), "this machine cannot enclose it: x"),
        ({"network": "none"}, SHELL, Terms(default="off"), Here("x"), "this machine cannot enclose it: x"),
        ({}, CLAUDE._replace(foreign=True), Terms(default="off"), Here("x"), "cannot enclose it: x"),
        ({"sandbox": "off"}, CLAUDE, Terms(), HERE, "only a shell is run without"),
        ({"sandbox": "off"}, SHELL, Terms(off="refuse"), HERE, "has nothing run without a sandbox"),
        ({"sandbox": "off"}, SHELL, Terms("off", "refuse"), HERE, "has nothing run without a sandbox"),
        ({"sandbox": "off", "network": ["a.org"]}, SHELL, Terms(), HERE, "says what a sandbox is to let"),
        ({"sandbox": "off"}, SHELL._replace(foreign=True), Terms(), HERE, "another fleet's work"),
        ({"network": ["a.org"]}, CLAUDE._replace(foreign=True), Terms(), HERE, "another fleet's work"),
        ({"paths": {"read": ["/opt/data"]}}, CLAUDE._replace(foreign=True), OPEN, HERE, "another fleet's"),
        ({"paths": {"write": [".vscode"]}}, CLAUDE._replace(foreign=True), OPEN, HERE, "another fleet's"),
        ({}, CLAUDE, Terms(network=()), HERE, "its agent needs api.example.net:443, and the owner"),
        ({"network": ["a.org"]}, SHELL, Terms(network=rules("b.org")), HERE, "it is to reach a.org:443"),
        ({"network": ["a.org:80"]}, SHELL, Terms(network=rules("a.org")), HERE, "it is to reach a.org:80"),
        ({"network": ["*.b.org"]}, SHELL, Terms(network=rules("a.b.org")), HERE, "it is to reach *.b.org"),
        ({"paths": {"read": ["/opt"]}}, SHELL, OPEN, HERE, "is to be shown /opt, and"),
        ({"paths": {"read": ["/opt/database"]}}, SHELL, OPEN, HERE, "is to be shown /opt/database"),
        ({"paths": {"write": ["/opt/data"]}}, SHELL, OPEN, HERE, "is to write to /opt/data"),
        ({"paths": {"read": ["~/secret"]}}, SHELL, OPEN, HERE, "is to be shown /home/a/secret"),
        ({"paths": {"read": ["~/.muster/x"]}}, SHELL, Terms(read=("~/.muster",)), HERE, "Muster itself"),
        ({"paths": {"read": ["/home/a"]}}, SHELL, Terms(read=("/home/a",)), HERE, "Muster itself"),
        ({"network": ["127.0.0.1"]}, SHELL, Terms(), HERE, "is an address"),
        ({"paths": {"read": ["/opt/data/../../etc"]}}, SHELL, OPEN, HERE, "a plain path"),
        ({"sandbox": "perhaps"}, SHELL, Terms(default="off"), HERE, "is no sandbox"),
    ],
)  # fmt: skip
def test_what_is_asked_and_not_allowed_is_refused_and_never_done_by_halves(
    order, doer, terms, here, why
):
    found = decide(order, doer, terms, here)
    assert why in found.refusal, found
    assert found == Decision(refusal=found.refusal)


@proves("openings.decided")
def test_a_path_counts_where_it_leads():
    links = {"/opt/data/link": "/etc", "/opt/data": "/mnt/big", "/opt/data/in": "/mnt/big/in",
             "/opt/data/own": "/home/a/.muster"}  # fmt: skip
    here = HERE._replace(real=lambda path: links.get(path, path))

    def read(path: str) -> Decision:
        return decide({"paths": {"read": [path]}}, SHELL, OPEN, here)

    # The owner's own link is the owner's word; one inside it may be anybody's.
    assert read("/opt/data").read == ("/opt/data",)
    assert read("/opt/data/in").read == ("/opt/data/in",)
    assert "is to be shown /opt/data/link" in read("/opt/data/link").refusal
    assert read("/opt/data/own").refusal


HOSTS = ("a.org", "a.org:80", "*.b.org", "x.b.org", "*.x.b.org", "c.net:22")
PATHS = ("/opt", "/opt/data", "/opt/data/a", "~/sets", "/home/a/sets/x", "~/cache", "/srv")
some_hosts = st.lists(st.sampled_from(HOSTS), max_size=3, unique=True)
some_paths = st.lists(st.sampled_from((*PATHS, ".vscode")), max_size=3, unique=True)
drawn_order = st.fixed_dictionaries(
    {},
    optional={
        "sandbox": st.sampled_from(["on", "off"]),
        "network": st.one_of(st.just("none"), some_hosts.filter(bool)),
        "paths": st.fixed_dictionaries(
            {}, optional={"read": some_paths.map(lambda p: [x for x in p if is_of_host(x)] or ["/opt"]),
                          "write": some_paths.filter(bool)}),
    },
)  # fmt: skip
drawn_terms = st.builds(
    lambda default, off, network, read, write: Terms(
        default, off, network, (), tuple(p for p in read if is_of_host(p)),
        tuple(p for p in write if is_of_host(p))),
    st.sampled_from(["on", "off"]), st.sampled_from(["allow", "refuse"]),
    st.one_of(st.none(), some_hosts.map(lambda texts: rules(*texts))), some_paths, some_paths,
)  # fmt: skip
drawn_doer = st.builds(
    Doer,
    st.sampled_from(["shell", "claude"]),
    some_hosts.map(lambda texts: rules(*texts)),
    st.booleans(),
)


def whole(path: str) -> str:
    return path.replace("~", "/home/a", 1)


@proves("openings.decided", "openings.fails-closed")
@given(drawn_order, drawn_doer, drawn_terms, st.sampled_from(["", "no bwrap"]))
@example({"paths": {}}, Doer("shell", (), False), Terms(default="off"), "")
def test_never_more_than_the_owner_allows_and_never_less_than_was_asked(
    order: dict[str, Any], doer: Doer, terms: Terms, cannot: str
) -> None:
    found = decide(order, doer, terms, HERE._replace(cannot=cannot))
    if found.refusal:
        assert found == Decision(refusal=found.refusal)
        return
    paths: dict[str, list[str]] = order.get("paths", {})
    if not found.enclosed:
        asked_off = order.get("sandbox") == "off" and doer.agent == "shell" and terms.off == "allow"
        assert asked_off or (terms.default == "off" and not any(order.values()))
        assert not doer.foreign
        return
    assert not cannot
    for rule in found.network:
        assert terms.network is None or any(covers(most, rule) for most in terms.network)
        assert rule in doer.hosts or str(rule) in {str(r) for r in rules(*order["network"])}
    for path in found.read:
        assert lies_in(path, map(whole, (*terms.read, *terms.write)))
    for path in found.write:
        assert lies_in(path, map(whole, terms.write))
    if doer.foreign:
        assert (found.read, found.write, found.free) == ((), (), ())
        assert set(found.network) <= set(doer.hosts)
    # Nothing that was asked is left out.
    if order.get("network") != "none":
        assert {*doer.hosts, *rules(*order.get("network", []))} == set(found.network)
    else:
        assert found.network == ()
    shown = {*found.read, *found.write}
    assert {whole(p) for p in paths.get("read", [])} <= shown
    assert {whole(p) for p in paths.get("write", []) if is_of_host(p)} == set(found.write)


@proves("openings.profile")
def test_equal_decisions_have_one_profile_and_others_another():
    base = decide({"network": ["a.org", "b.org:80"]}, CLAUDE, Terms(), HERE)
    same = decide({"network": ["b.org:80", "a.org:443", "a.org"]}, CLAUDE, Terms(), HERE)
    assert base.profile_hash() == same.profile_hash()
    assert base._replace(why=BY_FLEET).profile_hash() == base.profile_hash()
    others = [
        base._replace(network=base.network[:-1]),
        base._replace(local=base.network[:1]),
        base._replace(read=("/opt",)),
        base._replace(write=("/opt",)),
        base._replace(free=(".vscode",)),
        base._replace(memory_bytes=1),
        base._replace(processes=1),
        base._replace(enclosed=False),
    ]
    assert len({each.profile_hash() for each in (base, *others)}) == 1 + len(others)
    # Frozen: whoever approved something under a profile approved these bytes.
    assert decide({}, CLAUDE, Terms(), HERE).profile() == {
        "enclosed": True, "free": [], "local": [], "memory_bytes": 0,
        "network": ["api.example.net:443"], "processes": 0, "read": [], "v": 1, "write": [],
    }  # fmt: skip
    assert decide({}, CLAUDE, Terms(), HERE).profile_hash() == (
        "196d435e45d039f8de29177d66aa6db5360159ec4774b959ac7569eb212702f1"
    )
