"""Files of JSON as people write them, with comments and last commas: what is not ours stays."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.promise import proves

from muster.agent.plugin.edit import Members, put, take
from muster.agent.plugin.jsonc import Number, read, rewritten, same, without_root
from muster.errors import Conflict, Malformed

FILE = Path("/p/settings.json")
OURS = Members(
    FILE, "/own/hook.py", needs=((("version",), 1),),
    sets=((("plugins", "muster"), True), (("markets", "muster"), {"path": ["/own/hook.py", "x"]})),
    adds=((("hooks", "Stop"), {"command": "py /own/hook.py"}),
          (("hooks", "Tool"), {"hooks": [{"command": "py /own/hook.py"}]})),
    reads="commas",
)  # fmt: skip
NAMES = ("hooks", "plugins", "markets", "Stop", "Tool", "version", "a", "b //", "c\n/*", "é\ud800")


class Drawn:
    """A text that is drawn piece by piece, as odd as the grammar allows."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.end = draw(st.sampled_from(["\n", "\r\n"]))

    def gap(self) -> str:
        parts = [" ", "\t", "  ", self.end, "\n", "/* c */", "/**/", f'/* }}{self.end} " */',
                 f'// "{{{self.end}', f"//{self.end}", f"// é,  {self.end}"]  # fmt: skip
        return "".join(self.draw(st.lists(st.sampled_from(parts), max_size=3)))

    def text(self, depth: int) -> str:
        kind = self.draw(st.sampled_from(["word", "object", "list"] if depth else ["object"]))
        if kind == "word" or depth > 3:
            return self.draw(st.sampled_from(
                ["1", "-0.5e3", "1e400", "9" * 5000, "true", "null", '"// no"', '"/*"', '"\\"\\ud83d"', '""'],
            ))  # fmt: skip
        names = self.draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=kind == "object"))
        said = []
        for name in names:
            key = f"{json.dumps(name)}{self.gap()}:{self.gap()}" if kind == "object" else ""
            said.append(f"{self.gap()}{key}{self.text(depth + 1)}{self.gap()}")
        last = "," if said and self.draw(st.booleans()) else ""
        inner = ",".join(said) + last + self.gap()
        return f"{{{inner}}}" if kind == "object" else f"[{inner}]"


@st.composite
def files(draw: Any) -> str:
    drawn = Drawn(draw)
    mark = draw(st.sampled_from(["", "\ufeff"]))
    value = drawn.text(0) if draw(st.integers(0, 9)) else ""
    last = draw(st.sampled_from(["", "// the end", " "]))
    return mark + drawn.gap() + value + drawn.gap() + last


def plain(text: str) -> Any:
    """What a text says, read in another way than Muster does."""
    token = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
    bare = token.sub(lambda m: m[0] if m[0].startswith('"') else " ", text.removeprefix("\ufeff"))
    last = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[}\]])')
    bare = last.sub(lambda m: m[0] if m[0].startswith('"') else "", bare)
    return json.loads(bare, parse_int=str, parse_float=str) if bare.strip() else {}


def with_ours(value: Any) -> Any:
    value.setdefault("version", "1")
    value.setdefault("plugins", {})["muster"] = True
    value.setdefault("markets", {})["muster"] = {"path": ["/own/hook.py", "x"]}
    hooks = value.setdefault("hooks", {})
    hooks.setdefault("Stop", []).append({"command": "py /own/hook.py"})
    hooks.setdefault("Tool", []).append({"hooks": [{"command": "py /own/hook.py"}]})
    return value


def takes_ours(value: Any) -> bool:
    hooks = value.get("hooks", {})
    places = [value.get("plugins", {}), value.get("markets", {}), hooks]
    lists = [hooks.get(name, []) for name in ("Stop", "Tool")] if isinstance(hooks, dict) else []
    return all(isinstance(p, dict) for p in places) and all(isinstance(x, list) for x in lists)


@proves("install.restores")
@given(files())
@example("")
@example("\ufeff")
@example("{}")
@example("{\r\n}")
@example("// nothing yet")
@example('{"hooks": {}, "markets": { /* none */ }, // x\n}')
@example('{ // "a": 1\n}')
@example('{"a": 1 // c\n}')
@example('{\n  "a": "http://x/*y*/", // c\n  // "b": 2,\n}\n')
def test_what_is_put_in_says_more_and_takes_nothing_and_goes_byte_for_byte(text):
    before = text.encode()
    if not takes_ours(plain(text)):
        with pytest.raises(Malformed):
            put(OURS, before)
        return
    once = put(OURS, before)
    assert plain(once.decode()) == with_ours(plain(text))
    assert put(OURS, once) == once
    assert take(OURS, once, before) == before


@proves("install.restores")
@given(st.text(alphabet='{}[]",:/*\\\n\r a1\ufeff', max_size=24))
def test_of_any_text_it_is_refused_or_comes_back_byte_for_byte(text):
    before = text.encode()
    try:
        once = put(OURS, before)
    except (Malformed, Conflict):
        return
    assert take(OURS, once, before) == before


@proves("install.restores")
@given(files(), st.data())
def test_a_text_is_made_to_say_anything_and_stays_one_that_can_be_read(text, data):
    wanted = data.draw(
        st.dictionaries(
            st.sampled_from(NAMES),
            st.recursive(
                st.booleans() | st.integers(0, 2),
                lambda e: (
                    st.lists(e, max_size=3) | st.dictionaries(st.sampled_from(NAMES), e, max_size=3)
                ),
                max_leaves=4,
            ),
            max_size=4,
        )
    )
    after = rewritten(text, wanted)
    assert same(read(after).root.value, wanted)
    # Comments are the person's, but for those within what had to go.
    assert rewritten(after, wanted) == after


@proves("install.restores")
def test_ours_stands_as_its_neighbours_do():
    text = (
        '{\r\n\t// mine\r\n\t"servers": {\r\n\t\t"a": {}, // last\r\n\t},\r\n\t"hooks": '
        '{"Stop": [1]},\r\n}\r\n'
    )
    edit = Members(FILE, "/own", sets=((("servers", "muster"), {"command": "/own"}),),
                   adds=((("hooks", "Stop"), "/own"),), reads="commas")  # fmt: skip
    once = put(edit, text.encode()).decode()
    ours = '\r\n\t\t"muster": {\r\n\t\t\t"command": "/own"\r\n\t\t},'
    wanted = text.replace("// last", f"// last{ours}").replace("[1]", '[1, "/own"]')
    assert once == wanted


@proves("install.restores")
def test_where_somebody_wrote_since_their_words_stay_around_ours():
    before = b'{\n  // mine\n  "a": 1\n}\n'
    once = put(OURS, before)
    hers = once.replace(b'"version": 1,', b'"version": 1, // hers, too\n  "b": 2, /* and */')
    hers = hers.replace(b'"plugins": {', b'// why\n  "plugins": { // here')
    rest = take(OURS, hers, before)
    assert rest == (
        b'{\n  // mine\n  "a": 1,\n  "version": 1, // hers, too\n  "b": 2, /* and */\n  // why\n'
        b'  "plugins": { // here\n  }\n}\n'
    )


@proves("install.restores")
def test_a_comment_that_somebody_wrote_into_a_file_of_ours_alone_keeps_the_file():
    once = put(OURS, None)
    assert take(OURS, once, None) is None
    assert take(OURS, b"// hers\n" + once, None) == b"// hers\n"


@proves("install.restores")
@pytest.mark.parametrize(("reads", "good"), [("plain", 0), ("comments", 1), ("commas", 2)])
def test_what_a_program_would_read_nothing_of_is_refused_with_the_reason(reads, good):
    edit = replace(OURS, reads=reads)
    texts = (b'{"a": [1]}', b'{"a": [1] /* c */}', b'{"a": [1,]}')
    for text in texts[: good + 1]:
        assert plain(put(edit, text).decode())["a"] == ["1"]
    for text in texts[good + 1 :]:
        with pytest.raises(Malformed, match="reads nothing of"):
            put(edit, text)
        # What was put in before can be taken out all the same.
        assert take(edit, text) == text


@proves("install.restores")
@pytest.mark.parametrize(
    "text",
    ["{,}", "[1,,2]", '{"a" 1}', "{1: 2}", '{"a": }', "{} {}", "{", '{"a": 1', "/* c", '"a\nb"',
     "{'a': 1}", "{a: 1}", "01", "+1", "1.", "0x1", "truex", '"\\x"', "{} ]", "# c\n{}", "[1 2]",
     '{\r"a": 1}', "\r",
     # Programs do not agree on whether the comment ends there.
     '{"a": 1, // c\r"b": 2}'],
)  # fmt: skip
def test_what_is_no_such_json_is_refused(text):
    with pytest.raises(ValueError, match=r".") as error:
        read(text)
    assert "\n" not in str(error.value)


@proves("install.restores")
def test_values_are_told_apart_as_programs_do():
    assert not same(True, 1)
    assert not same([0], [False])
    assert same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert rewritten('{"a": 1}', {"a": True}) == '{"a": true}'
    assert isinstance(read("1e999").root.value, Number)
    assert without_root("{ /* c */ }") == "{ /* c */ }"
    # Of a list the rest stays as it was written, whatever goes.
    assert rewritten("[1, /*b*/ 2, // c\n3]", [1, 3]) == "[1, /*b*/ // c\n3]"
    assert rewritten("[1, // b\n 2, 3]", [1, 3]) == "[1, // b\n  3]"
