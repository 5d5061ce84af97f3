"""What is put into files of programs, and taken out of them: byte for byte."""

import json
from pathlib import Path

import pytest
from tests.promise import proves

from muster.agent.plugin.edit import Block, Members, Whole, put, take
from muster.errors import Conflict, Malformed

FILE = Path("/p/settings.json")
OURS = Members(
    FILE, "/own/hook.py",
    sets={("plugins", "muster"): True, ("markets", "muster"): {"path": "/own/hook.py"}},
    adds={("hooks", "Stop"): {"command": "py /own/hook.py"}},
)  # fmt: skip
BLOCK = Block(Path("/p/config.toml"), "[a]\nb = 1\n")


@proves("install.restores")
@pytest.mark.parametrize(
    "before",
    [None, b"{}", b'{"a": 1}', b'{\n    "hooks": {"Stop": [{"command": "mine"}]}\n}\n',
     b'{\n\t"markets": {"other": 1}\n}'],
)  # fmt: skip
def test_what_is_put_into_an_object_twice_is_once_there_and_can_be_taken_out(before):
    once = put(OURS, before)
    assert put(OURS, once) == once
    found = json.loads(once)
    assert found["plugins"]["muster"] is True
    assert found["hooks"]["Stop"][-1] == {"command": "py /own/hook.py"}
    rest = take(OURS, once)
    assert (json.loads(rest) if rest else {}) == json.loads(before or b"{}")


@proves("install.restores")
def test_of_a_file_that_was_changed_since_all_that_is_not_ours_stays():
    found = json.loads(put(OURS, b'{"a": 1}'))
    found["hooks"]["Stop"].append({"command": "hers"})
    found["plugins"]["other"] = True
    rest = json.loads(take(OURS, json.dumps(found).encode()))
    assert rest == {"a": 1, "plugins": {"other": True}, "hooks": {"Stop": [{"command": "hers"}]}}


@proves("install.restores")
def test_what_an_older_version_put_in_goes_first():
    older = OURS._replace(adds={("hooks", "Stop"): {"command": "old /own/hook.py"}})
    assert json.loads(put(OURS, put(older, None))) == json.loads(put(OURS, None))


@proves("install.restores")
@pytest.mark.parametrize(
    "now", [b"// a comment\n{}", b"[]", b"\xff", b'{"hooks": []}', b'{"hooks": {"Stop": 1}}',
            b"[" * 100_000]
)  # fmt: skip
def test_a_file_that_is_no_such_object_is_refused(now):
    with pytest.raises(Malformed):
        put(OURS, now)


@proves("install.restores")
def test_a_name_of_ours_that_is_somebody_elses_is_refused():
    with pytest.raises(Conflict, match=r"markets\.muster"):
        put(OURS, b'{"markets": {"muster": {"path": "/theirs"}}}')


@proves("install.restores")
@pytest.mark.parametrize("before", [None, b"", b"x = 1\n", b"x = 1", b"# only\n\n"])
def test_a_block_stands_at_the_end_once_and_goes_without_a_trace(before):
    once = put(BLOCK, before)
    assert put(BLOCK, once) == once
    assert put(BLOCK._replace(text="[a]\nb = 2\n"), once).count(b"[a]") == 1
    longer = once + b"[theirs]\n"
    assert put(BLOCK, longer).count(b"[theirs]") == 1
    rest = take(BLOCK, once) or b""
    assert rest.rstrip(b"\n") == (before or b"").rstrip(b"\n")
    with pytest.raises(Malformed, match="is missing"):
        take(BLOCK, once[:-10])


@proves("install.restores")
def test_a_file_that_is_ours_alone_goes_whole():
    edit = Whole(FILE, "text\n")
    assert put(edit, b"old") == b"text\n"
    assert take(edit, b"anything") is None
