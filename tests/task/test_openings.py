"""What an order asks of its sandbox, and what it may hand on."""

import pytest
from tests.promise import proves
from tests.task.specs import text

from muster.errors import Malformed
from muster.task.host_rule import HostRule
from muster.task.openings import UNSAID, Openings, narrowed, openings, openings_of, wider
from muster.task.spec import parse
from muster.task.template import phase_order

WHOLE = """\
sandbox: on
network: [api.example.net, "*.example.org:8443", api.example.net:443]
paths: {read: /opt/data, write: [~/cache, .vscode]}
"""
MEANS = Openings(
    "on", (HostRule("api.example.net"), HostRule("example.org", 8443, below=True)), False,
    ("/opt/data",), ("~/cache",), (".vscode",),
)  # fmt: skip


@proves("openings.said")
def test_an_order_says_what_its_phase_says():
    spec = parse(text({"a": WHOLE, "b": "", "c": "network: none", "d": "sandbox: off"}))
    orders = {name: phase_order(spec, name) for name in spec.phases}
    assert openings_of(orders["a"]) == openings(spec.phases["a"]) == MEANS
    assert openings_of(orders["b"]) == openings(spec.phases["b"]) == UNSAID
    assert openings_of(orders["c"]) == Openings(cut=True)
    assert openings_of(orders["d"]).is_off
    # As it was written.
    asked = {key: orders["a"][key] for key in ("sandbox", "network", "paths")}
    assert asked == {
        "sandbox": "on",
        "network": ["api.example.net", "*.example.org:8443", "api.example.net:443"],
        "paths": {"read": ["/opt/data"], "write": ["~/cache", ".vscode"]},
    }
    assert orders["c"]["network"] == "none"


@proves("openings.old-orders")
def test_an_order_that_says_nothing_of_a_sandbox_has_no_key_more():
    spec = parse(text({"a": ""}))
    order = phase_order(spec, "a")
    assert list(order) == [
        "v", "spec", "phase", "do", "agent", "check", "timeout_ms",
    ]  # fmt: skip
    assert not spec.phases["a"].says_sandbox


@proves("openings.old-orders")
@pytest.mark.parametrize(
    "said",
    [
        "sandbox: on",
        "network: none",
        "paths: {read: /opt}",
        "needs: {sandbox: enforced}",
        "paths: {}",
    ],
)
def test_a_phase_that_says_something_is_new_to_older_machines(said):
    assert parse(text({"a": said})).phases["a"].says_sandbox


@pytest.mark.parametrize(
    "order",
    [
        {"sandbox": "maybe"},
        {"sandbox": True},
        {"network": ["127.0.0.1"]},
        {"network": {"a": 1}},
        {"network": ["none", "none:1"], "paths": {"read": ["/proc"]}},
        {"paths": {"write": [".git/hooks"]}},
        {"paths": {"read": ["../x"]}},
        {"paths": {"more": ["/opt"]}},
        {"paths": []},
    ],
)
def test_an_order_that_no_spec_yields_is_no_order(order):
    with pytest.raises(Malformed):
        openings_of(order)


@proves("openings.never-wider")
@pytest.mark.parametrize(
    ("most", "asked", "why"),
    [
        (UNSAID, Openings("off"), "has sandbox: off"),
        (Openings("off"), Openings("off"), "has sandbox: off"),
        (Openings("on"), UNSAID, "say `sandbox: on`"),
        (Openings(cut=True), UNSAID, "say `network: none`"),
        (UNSAID, Openings(network=(HostRule("a.b"),)), "a.b:443, and may reach none beside"),
        (Openings(network=(HostRule("a.b"),)), Openings(network=(HostRule("a.b", 80),)), "a.b:80"),
        (UNSAID, Openings(read=("/opt",)), "is shown /opt"),
        (Openings(read=("/opt",)), Openings(write=("/opt",)), "may write to /opt"),
        (Openings(write=("/opt",)), Openings(free=(".vscode",)), "may write to .vscode"),
    ],
)
def test_more_than_who_hands_it_on_has_is_refused(most, asked, why):
    assert why in next(wider(most, asked))


@proves("openings.never-wider")
@pytest.mark.parametrize(
    "most", [UNSAID, MEANS, Openings("on"), Openings(cut=True), Openings("off")]
)
def test_the_same_and_what_keeps_within_it_may_be_handed_on(most):
    assert list(wider(most, most)) == ([] if not most.is_off else list(wider(most, most))[:1])
    assert list(wider(most, openings_of(narrowed(most)))) == []
