"""`muster channel`: what config.toml says of a channel, without an editor."""

import stat

import pytest

from muster.errors import Refused
from muster.node.host.config import with_setting, without_settings
from tests.cli.world import everything_in, muster
from tests.ports import free_port
from tests.promise import proves

KEYS = "AWS_ACCESS_KEY_ID=a-long-access-key\nAWS_SECRET_ACCESS_KEY=a-long-secret-key\n"


@pytest.fixture
def home(tmp_path):
    listen = f"127.0.0.1:{free_port()}"
    assert muster(tmp_path / "nas", "init", "--name", "nas", "--listen", listen).code == 0
    yield tmp_path / "nas"
    muster(tmp_path / "nas", "down")


@proves("cli.channel-settings")
def test_a_channel_is_set_listed_counted_by_the_daemon_and_taken_away(home, tmp_path):
    before = (home / "config.toml").read_bytes()
    served = ("--set", "serve=127.0.0.1:0", "--set", "cluster=nas,build,studio")
    said = muster(home, "channel", "nats", "nas", *served, "--json").value["says"]
    assert set(said.split(", ")) >= {"place = nas", "serve = 127.0.0.1:0", "cluster = nas"}
    text = (home / "config.toml").read_text()
    assert 'nats.cluster = ["nas", "build", "studio"]' in text
    many = muster(home, "channel", "http", "--set", "listen=127.0.0.1:7,127.0.0.2:7", "--json")
    assert "listen = 127.0.0.1:7, 127.0.0.2:7" in many.value["says"]
    (home / "config.toml").write_text(text)
    assert muster(home, "channel", "nats", "--off").code == 0
    assert (home / "config.toml").read_bytes() == before
    folder = tmp_path / "Größe 1"
    folder.mkdir()
    said = muster(home, "channel", "drop", str(folder), "--set", "deadline_s=60")
    assert said.code == 0, said
    assert "counts from `muster up` on" in said.out
    rows = {row["channel"]: row for row in muster(home, "channel", "--json").value}
    assert rows["drop"]["state"] == "on"
    assert set(rows["drop"]["says"].split(", ")) == {f"place = {folder}", "deadline_s = 60"}
    assert {rows[each]["state"] for each in ("git", "cloud")} == {"off"}
    assert muster(home, "up", "--detach").code == 0
    nobody = muster(home, "channel", "ssh", "nsa=me@nas.local")
    assert (nobody.code, "there are nas" in nobody.err) == (5, True)
    later = muster(home, "channel", "drop", "--set", "deadline_s=91", "--json").value
    assert later["counts"] == "later"
    assert muster(home, "channel", "drop", "--set", "deadline_s=91", "--json").value["counts"] == ""
    pid = muster(home, "status", "--json").value["process"]["pid"]
    now = muster(home, "channel", "drop", "--off", "--restart", "--json").value
    assert (now["did"], now["says"], now["counts"]) == ("off", "", "now")
    assert muster(home, "status", "--json").value["process"]["pid"] != pid
    assert (home / "config.toml").read_bytes() == before


@proves("cli.channel-settings")
def test_keys_of_a_bucket_are_taken_from_a_file_or_standard_input_and_lie_where_nobody_else_reads(
    home, tmp_path
):
    place = ("channel", "cloud", "http://127.0.0.1:8333/fleet")
    bare = muster(home, *place)
    assert bare.code == 3
    assert "--keys FILE" in bare.err
    assert "channel.cloud" not in (home / "config.toml").read_text()
    assert muster(home, *place, "--keys", "-", stdin=KEYS).code == 0
    assert stat.S_IMODE((home / "cloud.env").stat().st_mode) == 0o600
    (tmp_path / "new").write_text(KEYS.replace("a-long", "a-new"))
    said = muster(home, "channel", "cloud", "--keys", str(tmp_path / "new"))
    assert said.code == 0
    assert "a-new" not in said.out + said.err
    assert "a-new-secret-key" in (home / "cloud.env").read_text()


WRONG = [
    (("drpo", "/x"), 5, "did you mean drop?"),
    (("drop",), 3, "muster channel drop PLACE"),
    (("drop", "/x", "--set", "depth=3"), 3, "deadline_s"),
    (("drop", "/x", "--set", "deadline_s=often"), 3, "deadline_s=often"),
    (("drop", "/x", "--keys", "f"), 3, "--keys is for cloud"),
    (("drop", "/x", "--off"), 3, "leave the rest out"),
    (("--off",), 3, "which channel"),
    (("nats", "--set", "cluster=nas,build"), 8, "cluster"),
    (("ssh", "me@build"), 3, "MACHINE=ADDRESS"),
    (("http", "Build!=1.2.3.4:5"), 3, "machine"),
    (("http",), 3, "--set listen=auto"),
    (("git",), 3, "`muster channel git PLACE`"),
    (("http", "build=1.2.3.4"), 8, "host:port"),
    (("git", "http://host/x"), 8, "channel.git.place"),
    (("cloud", "http://127.0.0.1/fleet", "--keys", "nosuch"), 5, "nosuch"),
    (("cloud", "http://127.0.0.1/fleet", "--keys", "-"), 8, "AWS_ACCESS_KEY_ID"),
]


@proves("cli.channel-settings")
def test_what_could_not_work_is_refused_and_nothing_is_written(home):
    before = everything_in(home)
    for words, code, why in WRONG:
        said = muster(home, "channel", *words)
        assert (said.code, said.out) == (code, ""), (words, said)
        assert why in said.err, (words, said)
    assert everything_in(home) == before


@proves("cli.channel-settings")
def test_a_setting_within_tables_is_changed_in_its_place_and_what_is_written_otherwise_stays():
    text = 'name = "x"  # mine\n'
    once = with_setting(text, "channel.drop.place", "~/Größe😀")
    assert once == 'channel.drop.place = "~/Größe😀"\n' + text
    both = with_setting(once, "channel.cloud.deadline_s", 30)
    again = with_setting(both, "channel.cloud.deadline_s", 31)
    assert again == both.replace("30", "31")
    assert without_settings(without_settings(again, "channel.cloud"), "channel.drop") == text
    assert without_settings(text, "channel.drop") == text
    commented = 'channel.drop.place = "a"  # the stick\n' + text
    assert without_settings(commented, "channel.drop") == text
    for form in (
        '[channel.drop]\nplace = "a"\n',
        'channel.drop = {place = "a"}\n',
        "channel = 1\n",
    ):
        with pytest.raises(Refused, match=r"channel\.drop"):
            with_setting(form, "channel.drop.place", "b")
    for form in ('[channel.drop]\nplace = "a"\n', 'channel.drop = {place = "a"}\n'):
        with pytest.raises(Refused, match="yours"):
            without_settings(form, "channel.drop")
