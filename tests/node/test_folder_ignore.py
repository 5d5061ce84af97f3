"""A line more in the list of what a context folder leaves out."""

import pytest
from tests.promise import proves

from muster.errors import Refused
from muster.verbs.context import _add_line


@proves("context.no-way-out")
def test_no_link_in_its_place_leads_the_line_out_of_the_folder(tmp_path):
    outside, listed = tmp_path / "outside", tmp_path / "folder" / ".musterignore"
    listed.parent.mkdir()
    outside.write_text("mine")
    listed.symlink_to(outside)
    with pytest.raises(Refused, match="cannot be written"):
        _add_line(listed, "*.draft")
    assert outside.read_text() == "mine"
    listed.unlink()
    for pattern in ("*.draft", "*.log"):
        _add_line(listed, pattern)
    assert listed.read_text() == "*.draft\n*.log\n"
