"""The high-water mark: what remembers more than a restored database."""

from dataclasses import replace

import pytest
from tests.promise import proves

from muster.errors import Malformed
from muster.store.mark import Mark, MarkFile, doubts

MARK = Mark("0" * 32, {"m/i/fleet": 7}, "machine", "boot", "generation")


@proves("store.mark")
def test_a_mark_comes_back(tmp_path):
    file = MarkFile(tmp_path / "other" / "mark.json")
    assert file.read() is None
    assert file.write(MARK, 5_000)
    assert file.read() == replace(MARK, written_ms=5_000)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["mark.json"]


@proves("node.private-whatever-the-umask")
def test_the_folder_of_a_mark_that_an_earlier_version_left_open_is_closed(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    assert MarkFile(folder / "mark.json").write(MARK, 5_000)
    assert folder.stat().st_mode & 0o777 == 0o700


@proves("store.mark")
def test_a_mark_is_written_once_a_second_and_on_demand(tmp_path):
    file = MarkFile(tmp_path / "mark.json")
    grown = [replace(MARK, sizes={"s": size}) for size in range(5)]
    assert file.write(grown[0], 1_000)
    assert not file.write(grown[1], 1_999)
    assert file.read().sizes == {"s": 0}
    assert file.write(grown[2], 2_000)
    assert file.write(grown[3], 2_001, force=True)
    assert not file.write(grown[3], 9_000)
    # The clock was set back: the mark must not fall silent for a day.
    assert file.write(grown[4], 100)
    assert file.read().sizes == {"s": 4}


@proves("store.mark")
@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"sizes":{}}', b'{"sizes":1}', b"\xff", b'{"incarnation":1}']
)
def test_a_damaged_mark_is_told_apart_from_none(tmp_path, raw):
    (tmp_path / "mark.json").write_bytes(raw)
    with pytest.raises(Malformed, match="damaged"):
        MarkFile(tmp_path / "mark.json").read()


@proves("store.mark-doubts")
def test_a_database_that_fits_its_mark_is_not_doubted():
    assert doubts(MARK, {"m/i/fleet": 7}, "machine", "generation") == []
    assert doubts(MARK, {"m/i/fleet": 9, "new": 1}, "machine", "generation") == []
    assert doubts(None, {}, "machine", "generation") == []
    assert doubts(None, {"m/i/fleet": 0}, "machine", "generation") == []


@proves("store.mark-doubts")
@pytest.mark.parametrize(
    ("mark", "sizes", "machine_id", "generation", "word"),
    [
        (MARK, {"m/i/fleet": 6}, "machine", "generation", "had 7"),
        (MARK, {}, "machine", "generation", "had 7"),
        (MARK, {"m/i/fleet": 7}, "other", "generation", "installation"),
        (MARK, {"m/i/fleet": 7}, "machine", "other", "virtual machine"),
        (None, {"m/i/fleet": 7}, "machine", "generation", "copy"),
    ],
)
def test_a_database_that_does_not_fit_is_doubted(mark, sizes, machine_id, generation, word):
    (doubt,) = doubts(mark, sizes, machine_id, generation)
    assert word in doubt
