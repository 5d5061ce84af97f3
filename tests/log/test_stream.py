"""Names of streams, machines and scopes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.log.material import BUILD, STREAM, STUDIO
from tests.promise import proves

from muster.errors import Malformed
from muster.log import stream
from muster.log.stream import StreamName

SCOPES = ["fleet", "journal", f"to.{BUILD}", f"g.{STUDIO}.release-notes"]


@proves("log.stream-round-trip")
@pytest.mark.parametrize("scope", SCOPES)
def test_a_stream_name_comes_back_from_its_text(scope):
    name = STREAM._replace(scope=stream.scope(scope))
    assert StreamName.parse(str(name)) == name


@proves("log.stream-refuses-others")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "fleet",
        f"{STUDIO}/{STREAM.incarnation}",
        f"{STUDIO}/{STREAM.incarnation}/fleet/x",
        f"{STUDIO.upper()}/{STREAM.incarnation}/fleet",
        f"{STUDIO[:-1]}/{STREAM.incarnation}/fleet",
        f"{STUDIO}/{STREAM.incarnation}0/fleet",
        f"{STUDIO}/{STREAM.incarnation}/fleet\n",
        f"{STUDIO}/{STREAM.incarnation}/ fleet",
        f"{STUDIO}/{STREAM.incarnation}/to.",
        f"{STUDIO}/{STREAM.incarnation}/to.{BUILD}x",
        f"{STUDIO}/{STREAM.incarnation}/g.{BUILD}.",
        f"{STUDIO}/{STREAM.incarnation}/g.{BUILD}.Upper",
        f"{STUDIO}/{STREAM.incarnation}/g.{BUILD}.{'x' * 33}",
        f"{STUDIO}/{STREAM.incarnation}/../../etc",
        "٠" * 64 + f"/{STREAM.incarnation}/fleet",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(Malformed):
        StreamName.parse(text)


@proves("log.stream-refuses-others")
@given(st.text(max_size=200).filter(lambda text: text not in {"fleet", "journal"}))
def test_arbitrary_text_raises_nothing_but_malformed(text):
    for read in (StreamName.parse, stream.scope, stream.machine_id, stream.incarnation):
        with pytest.raises(Malformed):
            read(text)


@proves("log.stream-scopes-tell")
def test_a_scope_tells_who_it_is_for():
    direct, group = stream.scope_to(BUILD), stream.scope_group(STUDIO, "notes")
    assert not stream.is_group(direct)
    assert stream.is_group(group)
    assert stream.direct_target(direct) == BUILD
    assert stream.direct_target(group) is None
    assert (stream.group_owner(group), stream.group_name(group)) == (STUDIO, "notes")
    assert stream.group_owner(stream.FLEET) is None
    assert stream.group_name(direct) is None


@proves("log.stream-refuses-others")
@pytest.mark.parametrize("name", ["", "Upper", "a b", "a/b", "x" * 33, "é", "a\n"])
def test_a_group_has_a_plain_name(name):
    with pytest.raises(Malformed):
        stream.scope_group(STUDIO, name)
