"""How a missing extra is brought: from where this program came, by what installed it."""

import json
import sys
from types import SimpleNamespace

import pytest

from muster import extra
from tests.promise import proves

WHEEL = {"url": "file:///home/me/my%20files/m.whl", "archive_info": {}}
CLONE = {"url": "file:///home/me/muster", "dir_info": {"editable": True}}
GIT = {"url": "https://host/m.git", "vcs_info": {"vcs": "git", "commit_id": "1"}}


@proves("cli.extras-come-from-where-it-came")
@pytest.mark.parametrize(
    ("said", "left", "expected"),
    [
        (WHEEL, "", "/venv/python -m pip install '/home/me/my files/m.whl[drop]'"),
        (CLONE, "", "/venv/python -m pip install -e '/home/me/muster[drop]'"),
        (CLONE, "pipx_metadata.json", "pipx install --force --editable '/home/me/muster[all]'"),
        (WHEEL, "uv-receipt.toml", "uv tool install --force '/home/me/my files/m.whl[all]'"),
        (GIT, "", "/venv/python -m pip install 'muster-fleet[drop] @ git+https://host/m.git'"),
        (None, "", "/venv/python -m pip install 'muster-fleet[drop]'"),
        ("not json", "", "/venv/python -m pip install 'muster-fleet[drop]'"),
        ([], "", "/venv/python -m pip install 'muster-fleet[drop]'"),
    ],
)
def test_the_command_brings_it_from_where_the_program_came(
    said, left, expected, monkeypatch, tmp_path
):
    text = said if said is None or said == "not json" else json.dumps(said)
    found = SimpleNamespace(read_text=lambda _name: text)
    monkeypatch.setattr("importlib.metadata.distribution", lambda _name: found)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/venv/python")
    if left:
        (tmp_path / left).touch()
    assert extra.bring("drop") == expected
