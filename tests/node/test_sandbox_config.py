"""What `[sandbox]` of config.toml may say."""

import os
import tomllib
from pathlib import Path

import pytest
from tests.promise import proves

from muster.agent.sandbox.profile import USER_OF_ROOTS
from muster.errors import Broken
from muster.node.host.config import Config, config_text, read_config, with_setting
from muster.node.host.sandbox_config import SandboxConfig, uid_of
from muster.task.enclosure import Terms
from muster.task.host_rule import HostRule

WHOLE = """
[sandbox]
default = "off"
off = "refuse"
program = "/usr/local/bin/bwrap"
paths = ["/opt/data", "~/datasets"]
writable = ["~/cache"]
network = ["*.example.org", "git.example.net:22"]
local = ["git.lan:3000"]
user = "agent"
memory = "8GiB"
processes = 512
"""


def read(text: str) -> Config:
    return read_config(tomllib.loads(text), Path("config.toml"))


@proves("openings.owner")
def test_an_owner_who_has_work_enclosed_and_says_nothing_else_opens_nothing():
    terms = read('sandbox.default = "on"').sandbox.terms()
    assert terms == Terms("on", "allow", None, (), (), (), 0, 4096)


@proves("openings.older-home")
def test_a_file_of_before_there_were_sandboxes_goes_on_to_mean_what_it_meant():
    assert read("").sandbox == SandboxConfig()
    assert read("").sandbox.terms().default == "off"


@proves("openings.owner")
def test_what_an_owner_says_is_what_work_is_held_against():
    assert read(WHOLE).sandbox.terms() == Terms(
        "off", "refuse",
        (HostRule("example.org", below=True), HostRule("git.example.net", 22)),
        (HostRule("git.lan", 3000),),
        ("/opt/data", "~/datasets"), ("~/cache",), 8 << 30, 512,
    )  # fmt: skip
    # A list that is there and empty lets nothing through, which is not the same as none.
    assert read("sandbox.network = []").sandbox.terms().network == ()


@proves("openings.owner")
@pytest.mark.parametrize("text", ["", WHOLE, "sandbox.network = []"])
def test_what_is_written_down_reads_the_same(text):
    config = read(text)
    assert read(config_text(config).decode()).sandbox == config.sandbox
    assert ("sandbox" in config_text(config).decode()) == bool(text)


@proves("enclosure.limits")
def test_only_an_owner_who_says_so_lets_work_start_processes_without_end():
    text = config_text(read("sandbox.processes = 0")).decode()
    assert read(text).sandbox.terms().processes == 0


def test_one_setting_is_changed_in_place():
    text = with_setting(config_text(Config(name="a")).decode(), "sandbox.default", "off")
    assert read(text).sandbox == SandboxConfig(default="off")


@proves("openings.owner")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sandbox = 1", "`sandbox` must be a table"),
        ('sandbox.default = "of"', '`sandbox.default` must be "off" or "on", not \'of\''),
        ("sandbox.default = false", '`sandbox.default` must be "off" or "on", not False'),
        ('sandbox.off = "deny"', '`sandbox.off` must be "allow" or "refuse"'),
        ('sandbox.netwrok = ["a.org"]', "`sandbox.netwrok` is not a setting; did you mean `network`"),
        ('sandbox.network = "a.org"', "`sandbox.network` must be a list of texts"),
        ('sandbox.network = ["10.0.0.1"]', '`sandbox`: `network` names "10.0.0.1", which is an address'),
        ('sandbox.local = ["http://git.lan"]', "`local` names \"http://git.lan\", which is no host's name"),
        ('sandbox.paths = ["data"]', '`paths` names "data", which is no path of this machine'),
        ('sandbox.paths = ["/"]', '`paths` names "/", which is all of a disk'),
        ('sandbox.writable = ["/run/docker.sock"]', '`writable` names "/run/docker.sock", which belongs'),
        ('sandbox.memory = "8"', '`memory` is "8"; write it as 512MiB or 8GiB'),
        ("sandbox.processes = -1", "`sandbox.processes` must be from 0 to"),
        ('sandbox.program = "bwrap"', '`program` is "bwrap"; write its path from /'),
        ('sandbox.user = "root"', "`user` is root"),
        ('sandbox.user = "0"', '`user` is "0"'),
        ("sandbox.user = 1000", "`sandbox.user` must be a text in quotes"),
        ('sandbox.user = "a b"', '`user` is "a b"'),
    ],
)  # fmt: skip
def test_what_is_of_no_use_is_named_by_its_setting(text, says):
    with pytest.raises(Broken) as refused:
        read(text)
    assert says in str(refused.value), str(refused.value)


@proves("openings.owner")
def test_whom_work_runs_as_where_the_daemon_is_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert uid_of("") == uid_of("daemon") == 0
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert uid_of("") == USER_OF_ROOTS
    assert uid_of("1234") == 1234
    assert uid_of("daemon") > 0
    with pytest.raises(Broken, match="has no such user"):
        uid_of("nobody-of-ours")
