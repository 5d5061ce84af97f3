"""`CHANNELS`: what is in the folder is in the list, and what is in the list can be used."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.promise import proves

from muster import channel as channels
from muster.channel import CHANNELS, FIRST, Spec
from muster.channel.base import LinkOptions, PostOptions
from muster.errors import Broken, Malformed
from muster.extra import bring

FOLDER = Path(channels.__file__).parent
PROJECT = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text())
# Ways to carry frames that lead to no machine by an address; channel/__init__.py says why.
NO_LINE = {"ipc", "relay"}


def declared() -> dict[str, set[str]]:
    """What each file of the folder defines."""
    return {
        path.stem: {
            node.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
        }
        for path in FOLDER.glob("*.py")
    }


@proves("channel.list-is-whole")
def test_every_file_that_is_a_channel_is_in_the_list_and_nothing_else():
    found = declared()
    made = {name for name, names in found.items() if {"Options", "open_channel"} & names}
    assert made == {spec.module.rpartition(".")[2] for spec in CHANNELS}
    other = {n for n, names in found.items() if any(c.endswith("Channel") for c in names)}
    assert other - made - {"base"} == NO_LINE, "say in channel/__init__.py where it stands"
    assert all(spec.module == f"muster.channel.{spec.name}" for spec in CHANNELS)


@proves("channel.list-is-whole")
def test_channels_are_kept_apart_by_the_contract_that_says_so():
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    (apart,) = [c["modules"] for c in contracts if c["type"] == "independence"]
    assert set(apart) == {f"muster.channel.{name}" for name in {s.name for s in CHANNELS} | NO_LINE}


@proves("channel.list-is-whole")
@pytest.mark.parametrize("spec", CHANNELS, ids=lambda spec: spec.name)
def test_a_channel_of_the_list_has_options_and_can_be_opened(spec: Spec):
    module = spec.load()
    if spec.shape == "link":
        assert issubclass(module.Options, LinkOptions)
        assert module.Options().reached_at() == ""
    else:
        assert issubclass(module.Options, PostOptions)
        assert module.Options().place == ""
    assert callable(module.open_channel)
    assert spec.name == module.NAME
    assert not spec.extra or spec.extra in PROJECT["project"]["optional-dependencies"]


@proves("channel.list-is-whole")
def test_the_first_channel_is_the_one_that_older_machines_know():
    assert FIRST == CHANNELS[0].name == "http"


@proves("channel.list-is-whole")
def test_a_channel_whose_library_is_not_installed_says_what_to_install():
    with pytest.raises(Broken, match=re.escape(bring("pigeons"))):
        Spec("pigeon", "link", "muster.channel.pigeon", extra="pigeons").load()


@proves("channel.addresses-are-words")
@pytest.mark.parametrize("text", ["", "a b", "a\n", "\x1b[2J", "ä", "x" * 201])
def test_what_is_not_one_printable_word_is_no_address_of_any_channel(text: str):
    options: Any = LinkOptions()
    with pytest.raises(Malformed):
        options.check_address(text)
    with pytest.raises(Malformed):
        options.check_listen(text)
    assert options.check_address("nats://hub:4222/x") == "nats://hub:4222/x"
