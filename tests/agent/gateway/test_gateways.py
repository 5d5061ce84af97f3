"""What an agent is given in the place of its keys, by its entry of the catalogue."""

import json

import msgspec
import pytest
from tests.promise import proves

from muster.agent.catalogue import AgentEntry, load
from muster.agent.gateway.address import address_of, proxy_of
from muster.agent.gateway.apis import APIS
from muster.agent.gateway.endpoint import Access, Endpoint
from muster.agent.gateways import FIRST_PORT, PLACEHOLDER, gateways_for
from muster.errors import Broken

REAL = "sk-real-0123456789"
KNOWN = load()


@proves("gateway.planned")
def test_claude_s_key_is_outside_and_a_placeholder_and_the_gateway_s_address_inside():
    own = {"ANTHROPIC_API_KEY": REAL, "PATH": "/bin", "ANTHROPIC_MODEL": "m"}
    plan = gateways_for(KNOWN["claude"], own)
    assert plan.inside(own) == {
        "PATH": "/bin",
        "ANTHROPIC_MODEL": "m",
        "ANTHROPIC_API_KEY": PLACEHOLDER,
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{FIRST_PORT}",
    }
    (gateway,) = plan.gateways
    assert (gateway.port, gateway.api) == (FIRST_PORT, APIS["anthropic"])
    assert gateway.upstream == "https://api.anthropic.com"
    assert gateway.key.line("") == ("x-api-key", REAL)
    assert plan.hosts == (), "with a gateway it needs no host"
    assert REAL not in repr(plan)


@proves("gateway.planned")
def test_a_token_goes_where_a_token_goes_and_the_owner_s_address_and_headers_stay_outside():
    own = {
        "ANTHROPIC_AUTH_TOKEN": REAL,
        "ANTHROPIC_BASE_URL": "https://models.example.com/anthropic",
        "ANTHROPIC_CUSTOM_HEADERS": "X-Team: blue\n\nx-secret: 77-88",
    }
    plan = gateways_for(KNOWN["claude"], own)
    (gateway,) = plan.gateways
    assert gateway.upstream == "https://models.example.com/anthropic"
    assert gateway.key.line("x-api-key") == ("authorization", f"Bearer {REAL}")
    assert gateway.headers == (("x-team", "blue"), ("x-secret", "77-88"))
    inside = plan.inside(own)
    assert inside["ANTHROPIC_AUTH_TOKEN"] == PLACEHOLDER
    assert "ANTHROPIC_CUSTOM_HEADERS" not in inside
    assert "77-88" not in repr(inside)


@proves("gateway.planned")
def test_who_has_a_gateway_has_no_other_account_inside():
    own = {"ANTHROPIC_API_KEY": REAL, "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat-77"}
    plan = gateways_for(KNOWN["claude"], own)
    assert "CLAUDE_CODE_OAUTH_TOKEN" not in plan.inside(own)
    login = gateways_for(KNOWN["claude"], {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat-77"})
    assert login.gateways == ()
    assert login.inside({"CLAUDE_CODE_OAUTH_TOKEN": "x"}) == {"CLAUDE_CODE_OAUTH_TOKEN": "x"}
    assert "api.anthropic.com" in login.hosts


@proves("gateway.planned")
def test_a_key_that_a_gateway_has_is_inside_under_no_other_name_and_in_no_longer_text():
    own = {
        "ANTHROPIC_API_KEY": REAL, "MY_KEY": REAL, "LINE": f"Authorization: Bearer {REAL}",
        "OTHER": "sk-real-9876543210", "PATH": "/bin",
    }  # fmt: skip
    inside = gateways_for(KNOWN["claude"], own).inside(own)
    assert REAL not in repr(inside)
    assert {name: inside[name] for name in inside.keys() & {"OTHER", "PATH"}} == {
        "OTHER": "sk-real-9876543210",
        "PATH": "/bin",
    }
    short = {"ANTHROPIC_API_KEY": "bin", "MY_KEY": "bin", "PATH": "/bin"}
    inside = gateways_for(KNOWN["claude"], short).inside(short)
    assert inside["PATH"] == "/bin", "what is so short stands in ordinary words"
    assert "MY_KEY" not in inside


@proves("gateway.planned")
def test_codex_is_given_a_provider_in_a_file_for_it_reads_no_address_of_its_environment():
    own = {"OPENAI_API_KEY": REAL, "CODEX_API_KEY": "sk-other-0123456789"}
    plan = gateways_for(KNOWN["codex"], own, [4000])
    inside = plan.inside(own)
    assert inside["OPENAI_API_KEY"] == inside["CODEX_API_KEY"] == PLACEHOLDER
    assert inside["MODEL_PROVIDER"] == "muster"
    text = plan.files[".codex/config.toml"]
    import tomllib

    provider = tomllib.loads(text)["model_providers"]["muster"]
    assert provider["base_url"] == inside["OPENAI_BASE_URL"] == "http://127.0.0.1:4000/v1"
    assert provider["env_key"] == "OPENAI_API_KEY"
    assert plan.gateways[0].key.line("authorization")[1] == "Bearer sk-other-0123456789"


@proves("gateway.planned")
def test_several_keys_have_a_gateway_each_and_share_a_file_of_settings():
    keys = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY")
    plan = gateways_for(KNOWN["opencode"], dict.fromkeys(keys, REAL), [1, 2, 3, 4])
    inside = plan.inside({})
    assert inside["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1/v1"
    assert inside["OPENAI_BASE_URL"] == "http://127.0.0.1:2/v1"
    settings = json.loads(plan.files[".config/opencode/opencode.json"])["provider"]
    assert settings["google"]["options"] == {
        "baseURL": "http://127.0.0.1:3/v1beta",
        "apiKey": PLACEHOLDER,
    }
    assert settings["openrouter"]["options"]["baseURL"] == "http://127.0.0.1:4/v1"
    assert {inside[key] for key in keys} == {PLACEHOLDER}
    one = gateways_for(KNOWN["opencode"], {"OPENROUTER_API_KEY": REAL})
    assert "google" not in one.files[".config/opencode/opencode.json"]


@proves("gateway.planned")
@pytest.mark.parametrize("name", [n for n, e in KNOWN.items() if e.access.endpoints])
def test_no_key_of_any_known_agent_is_inside_under_any_name(name):
    entry = KNOWN[name]
    keys = {key: f"{REAL}-{key}" for e in entry.access.endpoints for key in e.keys}
    bases = {e.base: "https://models.example.com/v1" for e in entry.access.endpoints}
    plan = gateways_for(entry, keys | bases)
    inside = plan.inside(keys | bases)
    assert REAL not in repr((inside, plan.files, plan.env, plan.hosts))
    assert len(plan.gateways) == len(entry.access.endpoints)
    ports = [each.port for each in plan.gateways]
    assert len(set(ports)) == len(ports)


@proves("gateway.planned")
@pytest.mark.parametrize("name", KNOWN)
def test_an_agent_without_a_key_has_no_gateway_and_what_its_login_needs(name):
    own = {"PATH": "/bin", "ANTHROPIC_BASE_URL": "https://x.example.com"}
    plan = gateways_for(KNOWN[name], own)
    assert (plan.gateways, plan.files, plan.removed) == ((), {}, frozenset())
    assert plan.inside(own) == own
    access = KNOWN[name].access
    assert plan.hosts == (*access.hosts, *access.login_hosts)


@proves("gateway.planned")
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_known_agent_but_the_shell_says_what_of_the_network_it_needs(name):
    access = KNOWN[name].access
    needs = access.endpoints or access.hosts or access.login_hosts
    assert bool(needs) == (name != "shell")
    for endpoint in access.endpoints:
        assert {*endpoint.keys, endpoint.base} - {""} <= set(KNOWN[name].variables), (
            "what it gets of its machine"
        )


@proves("gateway.planned")
@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"ANTHROPIC_BASE_URL": "ftp://x"}, "ANTHROPIC_BASE_URL of this machine is none"),
        ({"ANTHROPIC_BASE_URL": "https://"}, "ANTHROPIC_BASE_URL of this machine is none"),
        ({"ANTHROPIC_BASE_URL": "https://x:99999"}, "ANTHROPIC_BASE_URL of this machine is none"),
        ({"ANTHROPIC_BASE_URL": "https://ü.example"}, "letters that an address may not have"),
        ({"ANTHROPIC_CUSTOM_HEADERS": "no header"}, "a line that is no header"),
        ({"ANTHROPIC_CUSTOM_HEADERS": "a b: c"}, "a line that is no header"),
        ({"ANTHROPIC_API_KEY": "two words"}, "a key has letters"),
        ({"ANTHROPIC_API_KEY": "sk-real-0123456789\n"}, "a key has letters"),
    ],
)
def test_what_the_owner_wrote_wrongly_is_said_by_its_name_and_not_by_its_value(own, says):
    with pytest.raises(Broken, match=says) as raised:
        gateways_for(KNOWN["claude"], {"ANTHROPIC_API_KEY": REAL, **own})
    assert REAL not in str(raised.value)


@proves("gateway.planned")
@pytest.mark.parametrize(
    "change",
    [
        {"api": "another"}, {"keys": {}}, {"upstream": "nowhere"}, {"files": {"/etc/x": ""}},
        {"files": {"../x": ""}}, {"files": {"a//b": ""}}, {"more": 1},
    ],
)  # fmt: skip
def test_an_endpoint_that_cannot_be_meant_is_refused(change):
    sound = {"api": "openai", "keys": {"A_KEY": ""}}
    msgspec.convert(sound, Endpoint)
    with pytest.raises((ValueError, msgspec.ValidationError)):
        msgspec.convert({**sound, **change}, Endpoint)


@proves("gateway.planned")
@pytest.mark.parametrize(
    "host",
    ["", "*", "*.com.", "localhost", "10.0.0.1", "a.com:0", "a.com:99999", "a.com:x", "A.com", "a b.com",
     "a.com/x", "http://a.com", "*.*.com", "a..com", "ü.com", "0x7f.1", "a-.example.com", "-a.example.com",
     "a.example.com:0443", "a.example.com.", f"{'a' * 64}.example.com"],
)  # fmt: skip
def test_what_is_no_name_of_a_host_is_refused(host):
    for field in ("hosts", "login_hosts"):
        with pytest.raises(ValueError, match=r"^'.*' (is|has) "):
            Access(**{field: (host,)})


@pytest.mark.parametrize("host", ["a.com", "*.a.com", "a-b.example.com:8443"])
def test_names_of_hosts_are_taken(host):
    assert Access(hosts=(host,)).hosts == (host,)


# --- the way


@proves("gateway.way")
@pytest.mark.parametrize(
    ("env", "proxied"),
    [
        ({}, False),
        ({"HTTPS_PROXY": "http://p:3128"}, True),
        ({"https_proxy": "p:3128"}, True),
        ({"HTTP_PROXY": "http://p:3128"}, False),
        ({"ALL_PROXY": "http://p:3128"}, True),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, False),
        ({"HTTPS_PROXY": "http://p:3128", "no_proxy": "api.example.com"}, False),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "b.com, .example.com"}, False),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*.example.com"}, False),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "example.com:443"}, False),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "example.com:80"}, True),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "ple.com"}, True),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "10.0.0.0/8"}, True),
    ],
)
def test_the_machine_s_proxy_counts_where_it_is_not_excepted(env, proxied):
    found = proxy_of(address_of("https://api.example.com/v1"), env)
    assert (found is not None) == proxied
    assert found is None or (found.host, found.port) == ("p", 3128)


@proves("gateway.way")
def test_an_address_in_a_network_that_is_excepted_is_reached_without_it():
    env = {"http_proxy": "http://p:3128", "no_proxy": "10.0.0.0/8"}
    assert proxy_of(address_of("http://10.1.2.3:8080"), env) is None
    assert proxy_of(address_of("http://11.1.2.3:8080"), env) is not None


@proves("gateway.way")
def test_an_address_is_read_with_all_that_it_says():
    at = address_of("https://api.example.com:8443/models/v1/")
    assert (at.tls, at.host, at.port, at.path) == (True, "api.example.com", 8443, "/models/v1")
    assert at.authority == "api.example.com:8443"
    assert address_of("http://[::1]:80").authority == "[::1]"
    assert address_of("http://me:p%40ss@p:3128").user == "me:p@ss"


def test_an_entry_that_a_person_wrote_before_has_no_gateway():
    entry = AgentEntry(title="x", driver="acp", command=("x",), program="x", version_probe=("x",))
    assert gateways_for(entry, {"ANTHROPIC_API_KEY": REAL}).gateways == ()
