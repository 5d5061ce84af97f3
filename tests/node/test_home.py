"""What a home keeps, and what it refuses."""

import os
import re
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.promise import proves

from muster.agent.servers import Server
from muster.channel import FIRST, drop, http
from muster.errors import Broken, Exhausted, NotFound, Refused
from muster.limits import SOCKET_PATH_BYTES_MAX
from muster.node.host.chat_config import ChatConfig
from muster.node.host.config import Config, NatsServe, config_text
from muster.node.host.home import DEFAULT_REPOSITORY, DOOR_PORT, Home
from muster.node.host.money_config import MoneyConfig
from muster.node.host.notify_config import Heartbeat, NotifyConfig
from muster.node.host.reach import check_config, own_ways
from muster.node.host.sandbox_config import SandboxConfig
from muster.verbs import acp_session

SEED = bytes(range(32))
FACTS = {"fleet": "one", "record": "r", "ca": "c", "certificate": "t", "of a newer version": 1}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    return made


def files(home: Home) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in home.path.iterdir() if p.is_file()}


@proves("node.seeds-are-kept")
def test_a_seed_is_written_once_for_its_user_alone_and_never_again(home):
    home.put_seed("seed", SEED)
    assert (home.path / "seed").stat().st_mode & 0o777 == 0o600
    assert home.path.stat().st_mode & 0o777 == 0o700
    with pytest.raises(Refused, match="never gets a second key"):
        home.put_seed("seed", bytes(32))
    assert home.seed() == SEED


@proves("node.seeds-are-kept")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_seed_that_others_may_read_is_refused_with_the_way_to_mend_it(home, mode):
    home.put_seed("seed", SEED)
    (home.path / "seed").chmod(mode)
    with pytest.raises(Refused, match="chmod 600"):
        home.seed()


@proves("node.seeds-are-kept")
@pytest.mark.parametrize("raw", [b"", SEED[:31], SEED + b"\n"])
def test_a_seed_of_another_length_is_damaged(home, raw):
    home.put_seed("seed", raw)
    with pytest.raises(Broken, match="damaged"):
        home.seed()


def test_a_seed_that_is_not_there_says_which(home):
    with pytest.raises(NotFound, match=r"authority\.seed"):
        home.seed("authority.seed")


@proves("node.config-is-checked")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nmae = 'x'", "`nmae` is not a setting"),
        ("slots = 'two'", "`slots` must be a whole number"),
        ("slots = true", "`slots` must be a whole number"),
        ("labels = 'gpu'", "`labels` must be a list of texts"),
        ("labels = [1]", "`labels` must be a list of texts"),
        ("name = ", "mend the file"),
        ("peers = []", "`channel.http.peers` must be a table"),
        ("slot = 5", "`slot` is not a setting; did you mean `slots`?"),
        ("[channel.htp]", "`channel.htp` is no channel; did you mean `http`?"),
        (
            "[channel.http]\nlistn = ':1'",
            "`channel.http.listn` is not a setting; did you mean `listen`?",
        ),
        (
            "[channel.http]\nlisten = 7447",
            "`channel.http.listen` must be a text in quotes, not 7447",
        ),
        ("[channel.http.peers]\nnas = 1", "`channel.http.peers` must be a table of texts"),
        ("channel = 'http'", "`channel` must be a table"),
        ("channel.http = ':1'", "`channel.http` must be a table"),
        ("listen = ':1'\nchannel.http = ':1'", "`channel.http` must be a table"),
        (
            "listen = ':1'\n[channel.http]\nlisten = ':1'",
            "`listen` is said twice, also as `channel.http.listen`",
        ),
        ("slots = 5000", "`slots` must be from 0 to 4096"),
        ("lease_s = 0", "`lease_s` must be from 1 to 86400"),
    ],
)
def test_a_config_with_a_mistake_is_refused_and_the_setting_named(home, text, says):
    home.put("config.toml", text.encode())
    with pytest.raises(Broken, match=says):
        home.config()


@proves("channel.drop-place")
def test_a_shared_folder_is_read_back_and_one_that_is_none_is_refused_at_start(home):
    shared = drop.Options(place="/srv/shared", deadline_s=5)
    config = Config(name="nas", channel={FIRST: http.Options(), "drop": shared})
    home.put("config.toml", config_text(config))
    assert home.config() == config
    assert [(spec.name, options.place) for spec, options in config.posts()] == [
        ("drop", "/srv/shared")
    ]
    assert [spec.name for spec, _ in config.links()] == [FIRST], "nobody can be dialled there"
    assert own_ways(config, {}) == ()
    check_config(replace(config, name=""), {}, "config.toml")
    for place in ("", "shared"):
        channel = {"drop": drop.Options(place=place)}
        with pytest.raises(Broken, match=r"`channel.drop.place`: .* is no folder"):
            check_config(Config(channel=channel), {}, "config.toml")


@proves("node.config-is-checked")
def test_a_written_config_is_read_back_and_none_is_a_whole_one(home):
    assert home.config() == Config()
    options = http.Options("127.0.0.1:1", peers={"nas": "nas:1", "a b": "[::1]:2"})
    config = Config(name='a"b', labels=("gpu", "big\\"), slots=5, channel={FIRST: options})
    home.put("config.toml", config_text(config))
    assert home.config() == config


@proves("node.config-is-checked")
def test_every_setting_that_there_is_is_written_and_read_back(home):
    said = Config(
        name="nas",
        role="hub",
        labels=("gpu",),
        slots=5,
        lease_s=31,
        approval_s=61,
        agent_env=("EDITOR",),
        path="/a:/b",
        headless=("claude",),
        door=False,
        wake=True,
        lan=False,
        channel={"drop": drop.Options(place="/srv/shared")},
        nats=NatsServe(serve="auto"),
        mcp={"docs": Server(("npx", "docs-mcp"))},
        sandbox=SandboxConfig(default="on"),
        money=MoneyConfig(keeper="nas", usd_day="2.50"),
        notify=NotifyConfig(pagers=("nas",), zone="Europe/Berlin"),
        heartbeat=Heartbeat(url="https://watch.example.org/token"),
        chat={"telegram": ChatConfig(token="BOT", room="7")},
    )
    unsaid = [
        name for name in Config.__struct_fields__ if getattr(said, name) == getattr(Config(), name)
    ]
    assert not unsaid, "each has another value than without a file"
    home.put("config.toml", config_text(said))
    assert home.config() == replace(said, channel={FIRST: http.Options(), **said.channel})


@proves("agent.mcp-per-task", "node.config-is-checked")
def test_the_servers_that_an_owner_offers_are_read_and_written_back(home):
    text = """\
[mcp.docs]
command = ["npx", "-y", "docs-mcp"]
env = ["DOCS_TOKEN"]
[mcp.web]
url = "https://example.org/mcp"
headers = {Authorization = "Bearer ${WEB_TOKEN}"}
"""
    home.put("config.toml", text.encode())
    found = home.config()
    assert found.mcp["docs"] == Server(("npx", "-y", "docs-mcp"), env=("DOCS_TOKEN",))
    assert found.mcp["web"].variables == ("WEB_TOKEN",)
    home.put("config.toml", config_text(found))
    assert home.config().mcp == found.mcp


@proves("agent.mcp-per-task", "node.config-is-checked")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mcp = 5", "`mcp` must be a table"),
        ('[mcp."a b"]\ncommand = ["x"]', "`mcp.a b` is no name"),
        ("[mcp.docs]", "`mcp.docs` needs a command or a url"),
        (
            '[mcp.docs]\ncomand = ["x"]',
            "`mcp.docs.comand` is not a setting; did you mean `command`",
        ),
        ('[mcp.docs]\nurl = "docs"', "`mcp.docs` needs a url that begins with https"),
        ('[mcp.docs]\ncommand = "npx"', "`mcp.docs.command` must be a list of texts"),
    ],
)
def test_a_server_with_a_mistake_is_refused_and_named(home, text, says):
    home.put("config.toml", text.encode())
    with pytest.raises(Broken, match=re.escape(says)):
        home.config()


@proves("node.older-config")
def test_a_config_of_before_there_were_channels_means_the_one_that_there_was(home):
    text = """\
name = "nas"
listen = "0.0.0.0:7447"
address = "nas.local:7447"
hub = "studio.local:7447"
slots = 4
[peers]
laptop = "laptop.local:7447"
"""
    home.put("config.toml", text.encode())
    found = home.config()
    assert found.channel == {
        FIRST: http.Options(
            "0.0.0.0:7447", "nas.local:7447", "studio.local:7447", {"laptop": "laptop.local:7447"}
        )
    }
    home.put("config.toml", config_text(found))
    assert home.config() == found, "written anew it says the same"


@proves("node.older-config")
def test_what_is_added_at_the_end_of_a_written_config_is_a_setting_of_the_machine(home):
    home.put("config.toml", config_text(Config(name="nas")) + b'agent_env = ["A_KEY"]\n')
    assert home.config().agent_env == ("A_KEY",)
    assert home.config().options(FIRST) == http.Options()


@proves("node.files-whole-or-not")
def test_a_file_that_cannot_be_finished_leaves_the_old_one(home, monkeypatch):
    home.put_facts(FACTS)
    before = files(home)

    def fails(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(Exhausted, match="No space"):
        home.put_facts({"fleet": "two"})
    assert home.facts() == FACTS
    assert files(home) == before


@proves("node.damaged-home")
@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b"{}", b"3", b"[" * 100_000])
def test_damaged_facts_are_named(home, raw):
    home.put("fleet.json", raw)
    with pytest.raises(Broken, match=r"fleet\.json is damaged"):
        home.facts()


@proves("node.damaged-home")
@pytest.mark.parametrize(
    ("name", "value"),
    [("fleet", 3), ("ca", None), ("operators", "x"), ("operators", [1]), ("machines", {}),
     ("dial", []), ("dial", {"a": 1}), ("address", 7)],
)  # fmt: skip
def test_a_fact_of_another_kind_is_refused_by_its_name(home, name, value):
    home.put_facts({**FACTS, name: value})
    with pytest.raises(Broken, match=rf"fleet\.json is damaged \(.*\$\.{name}"):
        home.facts()


@proves("node.damaged-home")
def test_a_folder_in_the_place_of_a_file_is_said_by_its_name(home):
    for name in ("fleet.json", "config.toml", "seed", "agents.env"):
        (home.path / name).mkdir(mode=0o700)
    for read in (home.facts, home.config, home.seed, home.agent_variables):
        with pytest.raises(Broken, match=r"(fleet\.json|config\.toml|seed|agents\.env) cannot be"):
            read()


def test_a_socket_path_fits_into_what_the_kernel_takes_and_two_homes_share_none(tmp_path):
    deep = [Home(tmp_path / ("x" * 90) / name) for name in ("a", "b")]
    paths = [h.socket for h in deep]
    assert all(len(os.fsencode(p)) <= SOCKET_PATH_BYTES_MAX for p in paths)
    assert len(set(paths)) == 2
    near = Home("/h")
    assert near.socket == "/h/run/sock"


def test_the_mark_lies_outside_the_home(home, monkeypatch, tmp_path):
    monkeypatch.setenv("MUSTER_STATE", str(tmp_path / "state"))
    assert not Path(home.mark_folder).is_relative_to(home.path)
    assert home.mark_folder != Home(tmp_path / "other").mark_folder


def test_an_empty_place_says_how_to_begin(tmp_path):
    with pytest.raises(NotFound, match="muster init"):
        Home(tmp_path / "nothing").require()
    assert not (tmp_path / "nothing").exists()


def test_all_that_lies_in_a_home_stands_in_the_page_of_it(tmp_path):
    """`docs/spec/store.md`, by the names that the code has for them."""
    page = (Path(__file__).parents[2] / "docs" / "spec" / "store.md").read_text()
    listed = page.partition("## 9.")[2]
    home = Home(tmp_path / "home")
    paths = [Path(each) for each in vars(home).values()]
    names = {each.relative_to(home.path).parts[0] for each in paths if each != home.path}
    more = {"seed", "config.toml", "agents.env", "agents", "plugins", acp_session.FOLDER,
            "attempts", DOOR_PORT, DEFAULT_REPOSITORY}  # fmt: skip
    assert len(names) > 10
    assert {each for each in names | more if f"`{each}" not in listed} == set()
