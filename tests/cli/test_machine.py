"""`muster machine`: real daemons, as a person renames and relabels them."""

import re

import pytest

from muster.errors import Refused
from muster.node.host.config import with_setting
from tests.cli.world import muster
from tests.e2e.fleet import until
from tests.ports import free_port
from tests.promise import proves

SPEC = "muster: 1\nname: on-gpu\nphases:\n  only:\n    agent: shell\n    needs: {label: gpu}\n    do: echo hi\n    check: 'true'\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    studio, build = folder / "studio", folder / "build"
    listen = f"127.0.0.1:{free_port()}"
    begun = muster(
        studio, "init", "--name", "studio", "--operator", "al", "--listen", listen, "--up"
    )
    line = re.search(r"muster (join .*)$", begun.out, re.MULTILINE)
    assert line
    assert muster(build, *line[1].split()).code == 0
    assert muster(studio, "send", "build", "welcome", "--wait").code == 0
    yield studio, build
    for home in (studio, build):
        muster(home, "down")


@proves("cli.machine-renamed")
def test_a_machine_is_renamed_while_it_works_and_after_its_next_start(pair):
    studio, build = pair
    before = muster(studio, "sent", "--json").value[0]["message"]
    said = muster(studio, "machine", "rename", "build", "forge")
    assert (said.code, said.out) == (0, "build is forge from now on.\n")
    assert muster(studio, "send", "forge", "hi", "--wait").code == 0
    gone = muster(studio, "send", "build", "hi")
    assert gone.code == 5
    assert "it is forge" in gone.err
    # What was written before stays readable.
    assert before in [each["message"] for each in muster(studio, "sent", "--json").value]
    assert 'name = "forge"' in (build / "config.toml").read_text()
    muster(build, "down")
    assert muster(build, "up", "--detach", "--json").value["name"] == "forge"
    # The hub itself, which holds the authority.
    assert muster(studio, "machine", "rename", "studio", "atelier").code == 0
    muster(studio, "down")
    assert muster(studio, "up", "--detach", "--json").value["name"] == "atelier"
    until(
        lambda: (
            ("forge", "up")
            in [(m["name"], m["state"]) for m in muster(studio, "machines", "--json").value]
        ),
        "the hub hears of the other again",
    )
    for old, new in (("forge", "build"), ("atelier", "studio")):
        assert muster(studio, "machine", "rename", old, new).code == 0


@proves("cli.machine-renamed")
@pytest.mark.parametrize("name", ["studio", "al", "all", "Build", "build", ""])
def test_a_name_that_cannot_be_is_refused_before_the_machine_gives_its_word(pair, name):
    studio, build = pair
    text = (build / "config.toml").read_text()
    assert muster(studio, "machine", "rename", "build", name).code in (2, 3, 6)
    assert muster(studio, "machines", "--json").value[0]["name"] == "build"
    assert (build / "config.toml").read_text() == text


@proves("cli.machine-relabelled")
def test_labels_route_the_next_task_and_stand_in_the_config(pair, tmp_path):
    studio, build = pair
    (tmp_path / "gpu.yaml").write_text(SPEC)
    assert muster(studio, "machine", "relabel", "build", "+gpu", "+nightly").code == 0
    run = muster(studio, "run", str(tmp_path / "gpu.yaml"))
    assert run.code == 0, run.err
    (task,) = [t for t in muster(studio, "tasks", "--all", "--json").value if t["phase"] == "only"]
    assert task["machine"] == "build"
    said = muster(studio, "machine", "relabel", "build", "nightly-", "--json")
    assert said.value["labels"] == ["gpu"]
    assert 'labels = ["gpu"]' in (build / "config.toml").read_text()
    assert muster(studio, "machine", "relabel", "build", "tests").code == 0
    assert 'labels = ["tests"]' in (build / "config.toml").read_text()
    for odd in (("nope-",), ("+Bad",), ("+a", "b"), ("+",)):
        assert muster(studio, "machine", "relabel", "build", *odd).code == 3
    assert 'labels = ["tests"]' in (build / "config.toml").read_text()


@proves("cli.machine-relabelled")
@pytest.mark.parametrize(
    ("text", "fresh"),
    [
        ('labels = ["a"]  # mine\nslots = 2\n', 'labels = ["b", "c"]  # mine\nslots = 2\n'),
        ("slots = 2\n[channel.http]\n", 'labels = ["b", "c"]\nslots = 2\n[channel.http]\n'),
        ("", 'labels = ["b", "c"]\n'),
        ('labels = [\n  "a",\n]\n', None),
        ("labels = ['a]b']\n", 'labels = ["b", "c"]\n'),
        ("labels = ['a', \"b]\"]  # mine\n", 'labels = ["b", "c"]  # mine\n'),
        ('# labels = ["x"]\nlabels=[]', '# labels = ["x"]\nlabels = ["b", "c"]'),
    ],
)
def test_one_setting_is_changed_and_every_other_byte_of_a_persons_file_stays(text, fresh):
    if fresh is None:
        with pytest.raises(Refused, match="yours"):
            with_setting(text, "labels", ("b", "c"))
    else:
        assert with_setting(text, "labels", ("b", "c")) == fresh


@proves("cli.machine-renamed")
@pytest.mark.parametrize("old", ["'studio'", '"studio"', r'"st\u0075dio"', r'"a\"b"'])
def test_a_name_is_changed_however_a_string_of_one_line_is_written(old):
    text = f"slots = 2\nname = {old}  # mine\n"
    assert with_setting(text, "name", "forge") == 'slots = 2\nname = "forge"  # mine\n'


@proves("cli.machine-renamed")
@pytest.mark.parametrize("old", ["'''studio'''", '"""studio"""'])
def test_a_name_in_a_form_for_many_lines_is_its_persons_to_change(old):
    with pytest.raises(Refused, match="yours"):
        with_setting(f"name = {old}\n", "name", "forge")
