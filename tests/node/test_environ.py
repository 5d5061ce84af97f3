"""What an attempt gets of its machine's environment, and what the log never gets."""

import pytest
from tests.promise import proves

from muster.agent import catalogue
from muster.errors import Broken
from muster.node.environ import Redaction, given, parse
from muster.node.home import Config, Home, config_text

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


@proves("node.secrets-stay-out")
def test_the_name_of_a_secret_stands_wherever_an_attempt_says_its_value():
    clean = Redaction({**SOURCE, "MUSTER_CAPABILITY": "cap.0123456789", "SHORT_KEY": "the"})
    said = {"text": f"key {SOURCE['ANTHROPIC_API_KEY']}!", "n": 1, "list": ["cap.0123456789"]}
    assert clean.fields(said) == {
        "text": "key [ANTHROPIC_API_KEY]!", "n": 1, "list": ["[MUSTER_CAPABILITY]"],
    }  # fmt: skip
    assert clean.text("the proxy is http://proxy:3128, ed") == "the proxy is http://proxy:3128, ed"


@proves("node.agents-env")
def test_the_configuration_file_explains_keys_and_reads_back_as_it_was_written(tmp_path):
    home = Home(tmp_path)
    for config in (Config(name="a"), Config(name="a", agent_env=("X", "Y"), lease_s=7)):
        home.put("config.toml", config_text(config))
        assert home.config() == config
    assert "agents.env" in (tmp_path / "config.toml").read_text()
