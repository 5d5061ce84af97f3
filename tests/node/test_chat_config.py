"""`[chat.<service>]` of `config.toml`."""

from pathlib import Path

import pytest
from tests.promise import proves

from muster.errors import Broken
from muster.node.host.config import config_text, read_config

GOOD = {"token": "BOT", "url": "https://matrix.example.org/", "room": "!a:example.org"}
INVITERS = ["example.com", "@bob:example.net:8448"]
ROWS = (
    ({"fax": {"token": "BOT"}}, "chat.fax"),
    ({"matrix": {**GOOD, "token": ""}}, "needs `token`"),
    ({"matrix": {"token": "BOT"}}, "needs `url`"),
    ({"matrix": {**GOOD, "token": "syt_c2VjcmV0_abc-def"}}, "by the name of a secret"),
    ({"matrix": {**GOOD, "url": "ftp://x"}}, "a `url` that is none"),
    ({"matrix": {**GOOD, "url": "https://u:p@x"}}, "a `url` that is none"),
    ({"matrix": {**GOOD, "room": "two words"}}, "a `room` that is none"),
    ({"matrix": {**GOOD, "thread": "No Name"}}, "a `thread` that is no name"),
    ({"matrix": {**GOOD, "thread": "team@"}}, "a `thread` that is no name"),
    ({"matrix": {**GOOD, "tokens": "x"}}, "did you mean `token`"),
    ({"slack": {"token": "BOT"}}, "needs `app_token`"),
    ({"slack": {"token": "BOT", "app_token": "APP", "room": "#general"}}, "`room` that is none"),
    ({"slack": {"token": "BOT", "app_token": "xapp-1-A0-b"}}, "by the name of a secret"),
    ({"matrix": {**GOOD, "app_token": "APP"}}, "of slack alone"),
    ({"matrix": {**GOOD, "inviters": ["two words"]}}, "has `inviters` that are none"),
    ({"telegram": {"token": "TG", "inviters": ["x.org"]}}, "of matrix alone"),
    ({"discord": {"token": "BOT"}}, "needs `room`"),
    ({"discord": {"token": "BOT", "room": "general"}}, "a `room` that is none"),
    ({"matrix": "x"}, "must be a table"),
    ("x", "must be a table of tables"),
)


@proves("chat.process")
def test_what_is_said_of_a_bridge_is_read_and_written_and_what_is_of_no_use_is_named():
    chats = {
        "matrix": {**GOOD, "inviters": INVITERS},
        "slack": {"token": "BOT", "app_token": "APP"},
        "telegram": {"token": "TG"},
    }
    config = read_config({"chat": chats}, Path("c"))
    assert config.chat["matrix"].options()["url"] == "https://matrix.example.org"
    assert config.chat["matrix"].options()["inviters"] == INVITERS
    assert sorted(config.chat) == ["matrix", "slack", "telegram"]
    text = config_text(config).decode()
    assert 'chat.matrix.token = "BOT"' in text
    import tomllib

    assert read_config(tomllib.loads(text), Path("c")).chat == config.chat
    for found, says in ROWS:
        with pytest.raises(Broken, match=says):
            read_config({"chat": found}, Path("c"))
