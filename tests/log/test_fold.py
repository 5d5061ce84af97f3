"""How folds read bodies."""

import msgspec
import pytest
from tests.log.material import entry
from tests.promise import proves

from muster.log.fold import Skip, body_as


class Text(msgspec.Struct, forbid_unknown_fields=True):
    text: str


@proves("log.fold-body")
def test_a_body_is_read_into_its_type():
    assert body_as(entry(body=b'{"text":"hello"}'), Text) == Text("hello")


@proves("log.fold-body")
def test_an_erased_body_is_skipped_as_missing():
    with pytest.raises(Skip) as skip:
        body_as(entry().without_body(), Text)
    assert skip.value.reason == "no-body"


@proves("log.fold-body")
@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b'{"text":1}', b'{"text": "spaced"}', b'{"more":1,"text":"x"}', b"\xff"],
)
def test_an_unreadable_body_is_skipped_as_bad(body):
    with pytest.raises(Skip) as skip:
        body_as(entry(body=body), Text)
    assert skip.value.reason == "bad-body"
