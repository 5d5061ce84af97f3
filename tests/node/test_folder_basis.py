"""What files are made of is remembered for one folder on one disk, and for no other."""

from tests.promise import proves

from muster.log.entry import EntryId
from muster.node.folders.basis import Aim, Base, Basis
from muster.node.folders.signature import Signature

BASE = Base(Signature(1, 2, 3, 0o100), b"d" * 32, said_x=True, over=frozenset({EntryId(b"1" * 32)}))


def test_what_was_written_down_is_there_after_a_start(tmp_path):
    basis = Basis(tmp_path / "b.db")
    gone = Base(None, b"", said_x=False, over=frozenset(), behind=frozenset({EntryId(b"2" * 32)}))
    aim = Aim("tmp", "n.md", b"d" * 32, said_x=True, made_of=BASE.over, over=frozenset())
    basis.save("notes", {"n.md": BASE, "m.md": gone, "o.md": BASE})
    basis.save("notes", {"o.md": None})
    basis.aim("notes", [aim, aim._replace(name="other")])
    basis.done("notes", ["other"])
    basis.close()
    basis = Basis(tmp_path / "b.db")
    assert basis.bases("notes") == {"n.md": BASE, "m.md": gone}
    assert basis.aims("notes") == [aim]
    assert basis.bases("other") == {}
    assert gone.counting == {EntryId(b"2" * 32)}


@proves("context.no-way-out")
def test_another_folder_of_the_name_is_not_one_whose_files_were_deleted(tmp_path):
    basis = Basis(tmp_path / "b.db")
    basis.lies_at("notes", "/a", 1)
    basis.save("notes", {"n.md": BASE})
    basis.lies_at("notes", "/a", 1)
    assert basis.bases("notes") == {"n.md": BASE}
    for where in (("/b", 1), ("/b", 2)):
        basis.lies_at("notes", *where)
        assert basis.bases("notes") == {}
        basis.save("notes", {"n.md": BASE})
    basis.forget("notes")
    assert basis.bases("notes") == {}
