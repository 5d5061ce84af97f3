"""What an attempt gets of its machine's environment, and what the log never gets."""

import pytest
from msgspec.structs import replace
from tests.promise import proves

from muster.agent import catalogue
from muster.channel import FIRST, http
from muster.errors import Broken
from muster.node.host.config import Config, config_text
from muster.node.host.environment import given, parse, secrets
from muster.node.host.home import Home

SOURCE = {
    "ANTHROPIC_API_KEY": "sk-ant-0123456789",
    "OPENAI_API_KEY": "sk-openai-0123456789",
    "CODEX_HOME": "/somewhere",
    "HTTPS_PROXY": "http://proxy:3128",
    "AWS_SECRET_ACCESS_KEY": "aws-0123456789",
    "EDITOR": "ed",
}


@proves("node.agent-variables")
@pytest.mark.parametrize(
    ("agent", "own"),
    [
        ("claude", {"ANTHROPIC_API_KEY"}),
        ("codex", {"OPENAI_API_KEY", "CODEX_HOME"}),
        ("shell", set()),
    ],
)
def test_each_agent_gets_its_own_keys_and_the_shell_gets_none(agent, own):
    found = given(SOURCE, catalogue.load().get(agent), ())
    assert set(found) == own | {"HTTPS_PROXY"}


@proves("node.agent-variables")
def test_what_the_configuration_names_is_given_to_every_attempt():
    assert given(SOURCE, None, ["EDITOR", "ABSENT"])["EDITOR"] == "ed"


@proves("node.agents-env")
def test_keys_come_from_a_file_that_only_its_owner_can_read(tmp_path):
    home = Home(tmp_path)
    assert home.agent_variables() == {}
    home.put("agents.env", b"# keys\nexport A_KEY='one two'\n\nB_KEY=three=3\n")
    assert home.agent_variables() == {"A_KEY": "one two", "B_KEY": "three=3"}
    (tmp_path / "agents.env").chmod(0o640)
    with pytest.raises(Broken, match="chmod 600"):
        home.agent_variables()


@proves("node.agents-env")
def test_a_line_of_no_use_is_named_by_its_number_and_never_shown():
    with pytest.raises(Broken, match="keys, line 2") as caught:
        parse("A=b\nsk-ant-secret\n", "keys")
    assert "secret" not in str(caught.value)


@proves("node.secrets-registered")
def test_secrets_are_what_the_owner_gives_and_plainly_public_values_are_none():
    environment = {
        **SOURCE,
        "ANTHROPIC_MODEL": "claude-sonnet-4-5-20250929",
        "HTTPS_PROXY": "http://me:proxy-password@proxy:3128",
        "NOT_NAMED": "whatever-it-is-0123",
        "WEBHOOK": "https://hooks.example.org/T0/B0/abcdef",
        "JAVA_HOME": "/usr/bin:/bin",
        "REGION": "eu-central-1",
        "PORT": "8080.1",
        "DEPLOY_TOKEN": "production",
    }
    file = {"OPENAI_API_KEY": "sk-from-the-file", "SIGNING": "MIIEvQIBADANBg", "CODEX_HOME": "/x"}
    named = ["WEBHOOK", "JAVA_HOME", "REGION", "PORT", "DEPLOY_TOKEN"]
    assert secrets(environment, file, catalogue.load().values(), named) == {
        "ANTHROPIC_API_KEY": "sk-ant-0123456789",
        "OPENAI_API_KEY": "sk-from-the-file",
        "SIGNING": "MIIEvQIBADANBg",
        "HTTPS_PROXY": "proxy-password",
        "WEBHOOK": "https://hooks.example.org/T0/B0/abcdef",
        # Its value may be a word, but the owner called it a token.
        "DEPLOY_TOKEN": "production",
    }


@proves("node.agents-env")
def test_the_configuration_file_explains_keys_and_reads_back_as_it_was_written(tmp_path):
    home = Home(tmp_path)
    first = Config(name="a", channel={FIRST: http.Options()})
    for config in (first, replace(first, agent_env=("X", "Y"), lease_s=7)):
        home.put("config.toml", config_text(config))
        assert home.config() == config
    assert "agents.env" in (tmp_path / "config.toml").read_text()
