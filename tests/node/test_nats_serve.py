"""What `[nats]` of config.toml may say, and who reaches the server then."""

import tomllib
from pathlib import Path

import pytest
from tests.promise import proves

from muster.errors import Broken
from muster.node.engine.server import is_here
from muster.node.host.config import Config, NatsServe, config_text, read_config


def read(text: str) -> Config:
    return read_config(tomllib.loads(text), Path("config.toml"))


@proves("node.nats-serve-settings")
def test_what_is_written_is_read_and_what_is_of_no_use_is_named():
    assert read("").nats == NatsServe()
    said = NatsServe(serve="0.0.0.0:4222", address="nas.local:4222", server="/opt/nats-server")
    config = read(
        f"nats.serve = '{said.serve}'\nnats.address = '{said.address}'\nnats.server = '{said.server}'"
    )
    assert config.nats == said
    assert read(config_text(config).decode()).nats == said
    three = NatsServe(serve=":4222", cluster=("nas", "build", "studio"), routes=":6222")
    assert read(config_text(Config(nats=three)).decode()).nats == three
    for leaves in (NatsServe(serve=":4222", leaves=":7422"), NatsServe(leaf="127.0.0.1:4222")):
        assert read(config_text(Config(nats=leaves)).decode()).nats == leaves
    assert read("nats.serve = 'auto'").nats.serve == "auto"
    for text, why in (
        ("nats.cluster = ['a', 'b']", "`nats`: `cluster` names 3 machines"),
        ("nats.cluster = ['a', 'b', 'b']", "each once"),
        ("nats.cluster = 'a'", "`nats.cluster` must be"),
        ("nats.routes = '6222'", "`nats`"),
        ("nats.leaves = ':7422'", "`leaves` is of a machine that serves"),
        ("nats.serve = ':4222'\nnats.leaves = '7422'", "`nats`"),
        ("nats.serve = 'auto'\nnats.leaf = 'auto'", "has no `leaf` beside that"),
        ("nats.leaf = '0.0.0.0:4222'", "`leaf` is of this computer alone"),
        ("nats.leaf = '10.0.0.1:4222'", "`leaf` is of this computer alone"),
        ("nats.serve = 4222", "`nats.serve` must be a text"),
        ("nats.serve = 'nas.local'", "`nats`: address 'nas.local' is not host:port"),
        ("nats.serve = ':99999'", "`nats`"),
        ("nats.address = 'a b:1'", "`nats`"),
        ("nats.adress = 'auto'", "did you mean `address`"),
        ("nats = 'auto'", "`nats` must be a table"),
    ):
        with pytest.raises(Broken, match=why):
            read(text)


@proves("node.nats-serve-settings")
def test_what_listens_for_this_computer_alone_is_known_as_such():
    assert all(map(is_here, ("auto", "127.0.0.1:0", "127.0.0.9:4222", "[::1]:4222")))
    assert not any(
        map(is_here, (":4222", "0.0.0.0:4222", "[::]:1", "10.0.0.1:1", "localhost.evil:1"))
    )
