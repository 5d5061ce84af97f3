"""An invitation that went through a chat is the one that was printed, or is refused."""

import pytest
from tests.promise import proves

from muster.errors import Malformed
from muster.fleet.invite import pasted, read_invite, write_invite
from muster.log.stream import FleetId

TEXT = write_invite(FleetId("ab" * 32), bytes(range(16)), "studio-2.local:7447")
SIX = write_invite(FleetId("ab" * 32), bytes(range(16)), "[fd00::1]:7447")
PASTED = [
    "{}", " {}\n", "`{}`", "```\n{}\n```", '"{}"', "'{}'", "\u201c{}\u201d", "\u00ab{}\u00bb", "<{}>", "({})", "**{}**",
    "{}.", "{},", "{};", "{} !", "\u00a0{}\u00a0", "muster join {}", "`muster join {}`", "\ufeff{}\u200b",
]  # fmt: skip


@proves("fleet.invite-pasted")
@pytest.mark.parametrize("around", PASTED)
@pytest.mark.parametrize("text", [TEXT, SIX])
def test_what_a_chat_puts_around_an_invitation_is_taken_off(around, text):
    assert pasted(around.format(f"{text}#nas")) == f"{text}#nas"
    assert read_invite(around.format(text)) == read_invite(text)


@proves("fleet.invite-pasted")
def test_links_dashes_and_invisible_characters_inside_are_as_they_were_printed():
    want, address = read_invite(TEXT), "studio-2.local:7447"
    for changed in (
        f"[{address}](http://{address})",
        f"<http://{address}|{address}>",
        address.replace("-", "\u2011"),
        address.replace("-", "\u2013"),
        address.replace(".", ".\u200b"),
        address.upper(),
    ):
        assert read_invite(TEXT.replace(address, changed)) == want


@proves("fleet.invite-pasted")
@pytest.mark.parametrize(
    "bad",
    [
        TEXT[:60] + "\n" + TEXT[60:], TEXT[:60] + " " + TEXT[60:], TEXT[:-1] + "8", TEXT + TEXT,
        f"join with {TEXT}", TEXT.replace("muster1", "muster2"), "", "`", "x" * 100_000, TEXT[:50],
        TEXT.replace("studio-2.local:7447", "[other:1](http://other:1)"),
    ],
)  # fmt: skip
def test_what_is_not_the_printed_string_any_more_is_refused(bad):
    with pytest.raises(Malformed):
        read_invite(bad)
