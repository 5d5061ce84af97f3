"""What is put into files of programs, and taken out of them: byte for byte."""

import json
import tomllib
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.promise import proves

from muster.agent.plugin.edit import Members, Whole, left_over, placed, put, take
from muster.agent.plugin.jsonc import read
from muster.agent.plugin.tables import Tables
from muster.errors import Conflict, Malformed

FILE = Path("/p/settings.json")
OURS = Members(
    FILE, "/own/hook.py",
    sets=((("plugins", "muster"), True), (("markets", "muster"), {"path": "/own/hook.py"})),
    adds=((("hooks", "Stop"), {"command": "py /own/hook.py"}),),
)  # fmt: skip
THEIRS = replace(OURS, mark="/other/hook.py", sets=(),
                 adds=((("hooks", "Stop"), {"command": "py /other/hook.py"}),))  # fmt: skip
TOML = Path("/p/config.toml")
TABLES = Tables(TOML, "muster", (("a", "b = 1"),))


def trust(mark: str, number: int, said: str) -> Tables:
    """What a home trusts: the hook at this place."""
    name = f'hooks.state."/p/hooks.json:stop:{number}:0"'
    return Tables(TOML, mark, ((name, f'trusted = "{said}"'),), "hooks.state.")


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
    older = replace(OURS, adds=((("hooks", "Stop"), {"command": "old /own/hook.py"}),))
    both = put(THEIRS, put(older, None))
    # Where it stood, or everybody behind it would have another number.
    assert [each["command"] for each in json.loads(put(OURS, both))["hooks"]["Stop"]] == [
        "py /own/hook.py", "py /other/hook.py",
    ]  # fmt: skip


@proves("install.restores")
def test_what_only_an_older_version_put_in_is_known():
    older = replace(OURS, sets=(*OURS.sets, (("old", "muster"), 1)),
                    adds=(*OURS.adds, (("hooks", "Old"), {"command": "py /own/hook.py"})))  # fmt: skip
    gone = left_over(older, OURS)
    assert put(OURS, take(gone, put(older, b'{"a": 1}'))) == put(OURS, b'{"a": 1}')
    assert left_over(OURS, OURS) is None
    assert left_over(TABLES, OURS) is None


@proves("install.restores")
def test_a_hook_that_a_person_put_beside_ours_stays_and_ours_goes():
    group = {"matcher": "*", "hooks": [{"command": "py /own/hook.py"}]}
    edit = replace(OURS, sets=(), adds=((("hooks", "Tool"), group),))
    found = json.loads(put(edit, None))
    found["hooks"]["Tool"][0]["hooks"].append({"command": "hers"})
    found["hooks"]["Tool"][0]["hooks"][0]["timeout"] = 3
    now = json.dumps(found).encode()
    kept = {"matcher": "*", "hooks": [{"command": "hers"}]}
    assert json.loads(take(edit, now)) == {"hooks": {"Tool": [kept]}}
    again = json.loads(put(edit, now))["hooks"]["Tool"]
    assert again == [{"matcher": "*", "hooks": [*group["hooks"], {"command": "hers"}]}]
    assert placed(edit, now, ("hooks", "Tool")) == (0, 0)


@proves("install.restores")
@pytest.mark.parametrize("before", [None, b'{\n  "a": 1\n}\n'])
@pytest.mark.parametrize("comment", [b'// "hers": {},\n', b"/* hers */"])
@pytest.mark.parametrize(
    ("opening", "kept"),
    [
        (b'"markets": {', {"markets": {}}),
        (b'"hooks": {', {"hooks": {}}),
        (b'"Stop": [', {"hooks": {"Stop": []}}),
    ],
)
def test_a_comment_within_what_was_made_for_ours_stays(before, comment, opening, kept):
    edit = replace(OURS, reads="commas")
    now = put(edit, before)
    assert opening in now
    rest = take(edit, now.replace(opening, opening + b" " + comment), before)
    assert rest is not None
    assert comment.strip() in rest
    assert read(rest.decode()).root.value == json.loads(before or b"{}") | kept
    assert take(edit, put(edit, rest), rest) == rest


@proves("install.restores")
def test_a_comment_within_our_own_value_goes_with_it():
    edit = replace(OURS, reads="commas")
    now = put(edit, b"{}").replace(b'"path": ', b'/* of ours */ "path": ')
    assert take(edit, now, b"{}") == b"{}"


@proves("install.restores")
@pytest.mark.parametrize("said", [False, None, 1, "no"])
def test_what_a_person_had_said_of_a_name_that_we_set_is_said_again(said):
    before = json.dumps({"a": 1, "plugins": {"muster": said}}).encode()
    # What is kept as the file without us has it.
    assert take(OURS, before) == before
    now = put(OURS, before)
    assert json.loads(now)["plugins"]["muster"] is True
    assert take(OURS, now, before) == before
    assert take(OURS, now.replace(b'"a": 1', b'"a": 2'), before) == before.replace(b"1", b"2", 1)
    # And what they say after we came.
    theirs = f'"muster": {json.dumps(said)}'.encode()
    since = put(OURS, b'{"a": 1}').replace(b'"muster": true', theirs)
    assert json.loads(take(OURS, since, b'{"a": 1}')) == {"a": 1, "plugins": {"muster": said}}


@proves("install.restores")
def test_two_homes_are_two_in_one_file():
    once = put(OURS, None)
    both = put(THEIRS, once)
    assert json.loads(take(THEIRS, both)) == json.loads(once)
    assert json.loads(take(OURS, both)) == json.loads(put(THEIRS, None))
    assert placed(THEIRS, both, ("hooks", "Stop")) == (1, 0)


@proves("install.restores")
def test_a_name_that_stands_twice_stays_so_and_is_refused_where_ours_would_go_into_one_of_them():
    twice = b'{"a": 1, "a": 2}'
    assert twice[:-1] in put(OURS, twice)
    for now in (b'{"hooks": {}, "hooks": {}}', b'{"hooks": {"Stop": [], "Stop": []}}'):
        with pytest.raises(Malformed, match="twice"):
            put(OURS, now)


@proves("install.restores")
@pytest.mark.parametrize(
    "now", [b"// a comment\n{}", b"[]", b"\xff", b'{"hooks": []}', b'{"hooks": {"Stop": 1}}',
            b"[" * 100_000, b'{"a":' * 101 + b"1" + b"}" * 101, b"{" + b'"a":[1],' * 60_000 + b"}", b'{"a": -Infinity}', b'{"a": NaN}']
)  # fmt: skip
def test_a_file_that_is_no_such_object_is_refused(now):
    with pytest.raises(Malformed):
        put(OURS, now)


@proves("install.restores")
def test_half_a_character_is_no_end_of_it_and_stays_what_it_was():
    before = b'{"\\ud800": ["\\ude00 \\ud83d\\ude00 \xc3\xa9"]}'
    once = put(OURS, before)
    assert before[:-1] in once
    assert take(OURS, once, before) == before


@proves("install.restores")
def test_a_name_of_ours_that_is_somebody_elses_is_refused():
    with pytest.raises(Conflict, match=r"markets\.muster"):
        put(OURS, b'{"markets": {"muster": {"path": "/theirs"}}}')


@proves("install.restores")
@pytest.mark.parametrize("before", [None, b"", b"x = 1\n", b"x = 1", b"# only\n\n"])
def test_tables_stand_at_the_end_once_and_go_without_a_trace(before):
    once = put(TABLES, before)
    assert put(TABLES, once) == once
    assert put(replace(TABLES, tables=(("a", "b = 2"),)), once).count(b"[a]") == 1
    longer = once + b"[theirs]\n"
    assert put(TABLES, longer).count(b"[theirs]") == 1
    rest = take(TABLES, once) or b""
    assert rest.rstrip(b"\n") == (before or b"").rstrip(b"\n")
    with pytest.raises(Malformed, match="is missing"):
        take(TABLES, once[:-10])


@proves("install.restores")
def test_what_others_wrote_between_our_marks_stays():
    """As Codex does: a new table goes behind the last one, and that was ours."""
    end = b"# <<< muster <<<"
    now = put(TABLES, b"x = 1\n").replace(end, b"[projects]\nhers = true\n\n" + end)
    rest = tomllib.loads(take(TABLES, now).decode())
    assert rest == {"x": 1, "projects": {"hers": True}}
    assert tomllib.loads(put(TABLES, now).decode()) == {**rest, "a": {"b": 1}}


@proves("install.restores")
def test_no_two_tables_of_one_name_are_written_and_a_name_of_somebody_is_refused():
    with pytest.raises(Conflict, match=r"table \[a\]"):
        put(TABLES, b"[a]\nmine = 1\n")
    with pytest.raises(Malformed):
        put(TABLES, b"a = 1\n[a]\n")
    for broken in (b"x = \n", b"[[a]]\n[b", b"\xff"):
        with pytest.raises(Malformed):
            take(TABLES, broken)
    # What is said of a place in a list is for whoever stands there.
    stale = b'[hooks.state."/p/hooks.json:stop:0:0"]\ntrusted = "old"\n'
    assert put(trust("muster", 0, "new"), stale).count(b"stop:0:0") == 1


@proves("install.restores")
def test_two_homes_trust_their_hooks_in_one_file_and_numbers_move_up_when_one_goes():
    one, two = trust("muster", 0, "one"), trust("muster-3fa9c1", 1, "two")
    hers = b'[hooks.state."/p/hooks.json:stop:2:0"]\ntrusted = "hers"\n'
    both = put(two, put(one, hers))
    rest = take(one, both)
    said = {k: v["trusted"] for k, v in tomllib.loads(rest.decode())["hooks"]["state"].items()}
    assert said == {"/p/hooks.json:stop:0:0": "two", "/p/hooks.json:stop:1:0": "hers"}
    last = tomllib.loads(take(two, rest).decode())["hooks"]["state"]
    assert last == {"/p/hooks.json:stop:0:0": {"trusted": "hers"}}


@proves("install.restores")
def test_a_text_that_looks_like_a_table_of_ours_is_not_touched():
    now = b"x = '''\n[a]\nb = 1\n[c]\n'''\n"
    for work in (put, take):
        with pytest.raises(Malformed, match="by hand"):
            work(TABLES, now)


@proves("install.restores")
def test_a_file_that_is_ours_alone_goes_whole():
    edit = Whole(FILE, "text\n")
    assert put(edit, b"old") == b"text\n"
    assert take(edit, b"anything") is None
