"""Secrets in a stream: their names stand in their place, wherever the stream is cut."""

import base64
import html
import json
import shlex
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.promise import proves
from tests.work import calls

from muster.agent.mask import Secrets, Stream

TOKEN = "tok-" + "A1b2C3d4E5" * 4
PEM = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(
    f"MIIEvQ{n}BADANBgkqhki+G9w0/{n}" for n in range(4)
)


def streamed(secrets, data, *sizes):
    """What comes out when the data comes in pieces of these sizes, over and over."""
    stream, out, at, turn = Stream(secrets), b"", 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        out += stream.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    return out + stream.rest()


@proves("agent.secrets-masked")
@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.binary(max_size=50))
def test_a_secret_is_found_wherever_a_stream_is_cut(sizes, around):
    secrets = Secrets({"A": TOKEN, "B": "other-secret"})
    data = around + TOKEN.encode() + b"|" + TOKEN.encode() + around + b"other-secret"
    assert streamed(secrets, data, *sizes) == around + b"[A]|[A]" + around + b"[B]"


@proves("agent.secrets-masked")
@settings(deadline=None)
@given(st.text("abc", max_size=80), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_no_stream_keeps_more_or_says_other_than_the_whole_text(text, sizes):
    secrets = Secrets({"A": "abcabca", "B": "cabcabcabcab", "C": "bbbbbbb"})
    whole = secrets.text(text)
    assert streamed(secrets, text.encode(), *sizes).decode() in {
        whole, streamed(secrets, text.encode(), 10_000).decode(),
    }  # fmt: skip
    for secret in ("abcabca", "cabcabcabcab", "bbbbbbb"):
        assert secret not in whole


@proves("agent.secrets-masked")
def test_the_longest_secret_counts_where_one_begins_with_another():
    secrets = Secrets({"SHORT": "abcdefgh", "LONG": "abcdefghijklmnop"})
    assert secrets.text("x abcdefghijklmnop y") == "x [LONG] y"
    assert streamed(secrets, b"x abcdefghijklmnop y", 1) == b"x [LONG] y"
    assert secrets.text("x abcdefgh y") == "x [SHORT] y"


@proves("agent.secrets-masked")
@pytest.mark.parametrize("size", [1, 5, 100])
def test_secrets_that_overlap_leave_nothing_of_either(size):
    secrets = Secrets({"A": "abcdefgh", "B": "fghijklmnop"})
    assert streamed(secrets, b"<abcdefghijklmnop>", size) == b"<[A]>"


@proves("agent.secrets-masked")
@pytest.mark.parametrize("said", [PEM, PEM.replace("\n", "\r\n"), json.dumps(PEM)])
def test_every_line_of_a_secret_is_one(said):
    secrets = Secrets({"KEY": PEM})
    for size in (1, 17, 10_000):
        out = streamed(secrets, said.encode(), size)
        assert b"MIIEvQ" not in out
    fence, *lines = PEM.splitlines()
    assert [secrets.text(line) for line in lines] == ["[KEY]"] * 4
    assert secrets.text(fence) == fence


@proves("agent.secrets-masked")
@pytest.mark.parametrize(
    "spelled",
    [
        json.dumps('pa"ss\\wörd 1')[1:-1],
        json.dumps('pa"ss\\wörd 1', ensure_ascii=False)[1:-1],
        quote('pa"ss\\wörd 1', safe=""),
        quote('pa"ss\\wörd 1', safe="").lower(),
        'pa"ss\\wörd+1'.replace('"', "%22").replace("\\", "%5C").replace("ö", "%C3%B6"),
        base64.b64encode('pa"ss\\wörd 1'.encode()).decode(),
        base64.b64encode(b"x:" + 'pa"ss\\wörd 1'.encode() + b"more").decode(),
    ],
)
def test_a_secret_is_known_in_the_spellings_of_programs(spelled):
    masked = Secrets({"A": 'pa"ss\\wörd 1'}).text(f"<{spelled}>")
    assert "[A]" in masked
    assert "ss" not in masked.replace("[A]", "")


@proves("agent.secrets-masked")
@pytest.mark.parametrize(
    "spelled",
    [
        quote("ab/cd+ef=gh&<'ij\"k\\l"),
        quote("ab/cd+ef=gh&<'ij\"k\\l", safe="!'()*~"),
        repr("ab/cd+ef=gh&<'ij\"k\\l"),
        repr("ab/cd+ef=gh&<'ij\"k\\l".replace("'", "")).replace("ij", "\\'ij"),
        shlex.quote("ab/cd+ef=gh&<'ij\"k\\l"),
        "'ab/cd+ef=gh&<'\\''ij\"k\\l'",
        "ab/cd+ef=gh\\&\\<\\'ij\\\"k\\\\l",
        html.escape("ab/cd+ef=gh&<'ij\"k\\l"),
        html.escape("ab/cd+ef=gh&<'ij\"k\\l", quote=False),
    ],
)
def test_a_secret_is_known_as_shells_and_languages_quote_it(spelled):
    masked = Secrets({"A": "ab/cd+ef=gh&<'ij\"k\\l"}).text(f"<{spelled}>")
    assert "[A]" in masked
    assert "cd" not in masked


@proves("agent.secrets-masked")
def test_base64_in_lines_is_known_line_by_line():
    secret = "".join(f"{n:03}" for n in range(100))
    lines = base64.encodebytes(secret.encode()).decode().splitlines()
    assert len(lines) > 3
    masked = [Secrets({"A": secret}).text(line).rstrip("=") for line in lines]
    assert masked == ["[A]"] * len(lines)


@proves("agent.secrets-masked")
def test_the_password_in_an_address_is_a_secret_of_its_own():
    secrets = Secrets({"DB": "postgres://me:p%40ssword1@host/db"})
    assert secrets.text("p@ssword1 and p%40ssword1 at host") == "[DB] and [DB] at host"


@proves("agent.secrets-masked")
def test_a_secret_that_a_stream_breaks_off_in_is_hidden_as_well():
    assert streamed(Secrets({"A": TOKEN}), b"x " + TOKEN[:20].encode(), 7) == b"x [A]"
    assert streamed(Secrets({"A": TOKEN}), b"x tok", 7) == b"x tok"


@proves("agent.secrets-masked")
def test_a_stream_holds_back_no_more_than_the_longest_secret():
    secrets = Secrets({"A": "a" * 50})
    stream = Stream(secrets)
    out = b""
    for _ in range(1000):
        out += stream.feed(b"a" * 1000)
        assert len(stream._held) <= max(len(form) for form, _ in secrets.forms)
    assert out + stream.rest() == b"[A]"


@proves("agent.secrets-masked")
@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_what_is_no_secret_comes_out_as_it_went_in(data, sizes):
    assert streamed(Secrets({"A": TOKEN}), data, *sizes) == data
    assert streamed(Secrets({}), data, *sizes) == data


@proves("agent.secrets-masked")
def test_every_text_in_a_value_is_looked_at_and_names_are_told():
    secrets = Secrets({"A": TOKEN, "B": "unsaid-secret"})
    said = {"n": 1, TOKEN: [f"x{TOKEN}", ("y", None, {"z": TOKEN})]}
    assert secrets.fields(said) == {"n": 1, "[A]": ["x[A]", ["y", None, {"z": "[A]"}]]}
    assert secrets.found == {"A"}


@proves("secret.cheap-to-hide")
def test_a_key_of_many_lines_is_made_ready_to_be_hidden_at_little_cost_for_each():
    lines = [base64.b64encode(bytes([number] * 48)).decode() for number in range(100)]
    key = "\n".join(lines)
    assert calls(lambda: Secrets({"KEY": key})) < 1_500 * len(lines)
    both = Secrets({"KEY": key}).beside({"TOKEN": "one-more-of-them"})
    said = both.text(f"a {lines[7]} b {lines[99]} c one-more-of-them d {json.dumps(key)}")
    assert said.startswith("a [KEY] b [KEY] c [TOKEN] d ")
    assert not [line for line in lines if line in said]
    assert both.found == {"KEY", "TOKEN"}
    assert both.text("and one-more-of-them alone") == "and [TOKEN] alone"
    assert both.text(f"or {lines[3]} alone") == "or [KEY] alone"
