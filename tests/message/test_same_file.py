"""When a file is the same in two checkouts, and who is to hear of whom; the time is given."""

import pytest
from tests.promise import proves
from tests.work import calls

from muster.limits import (
    HOOK_FILES_KEPT,
    HOOK_TOUCHED_MS,
    SAME_FILE_PAIRS_PER_CALL,
    SAME_FILE_SAID_APART_MS,
    SAME_FILE_WRITERS_MAX,
    SAME_FILES_PER_CALL,
    SAME_FILES_TOLD_MAX,
    SAME_FILES_WAITING_MAX,
    SESSIONS_MAX,
)
from muster.message.same_file import (
    File,
    Prints,
    Writer,
    Writes,
    are_same,
    name_of,
    prints_of,
    repository_of,
)

HOME, SHOP = "aa" * 32, "https://example.com/acme/shop.git"
A, B = Writer(HOME, "claude", "shop-1"), Writer(HOME, "codex", "shop-2")
AWAY = "bb" * 32


def prints(path: str = "api.py", origin: str = SHOP, git: str = "/w/shop/.git") -> Prints:
    return prints_of(origin, git, path)


class Desk(Writes):
    """A machine whose sessions write files of one checkout."""

    def __init__(self) -> None:
        super().__init__(HOME)
        self.ms = 0

    def write(
        self, who: Writer = A, path: str = "api.py", *, root: str = "/w/shop", **at: str
    ) -> None:
        git = at.get("git", "/w/shop/.git")
        self.wrote(who, File(git, path), root, prints(path, **at), self.ms)

    def meet(self, *others: tuple[str, str], path: str = "api.py", machine: str = AWAY) -> None:
        self.met(machine, {prints(path): [(*each, self.ms) for each in others]}, self.ms)

    def hears(self, who: Writer = A) -> list[tuple[str, str, str]]:
        """What a session is told now, and that it was."""
        found = self.due(who)
        for each in found:
            self.told(who, each)
        return [(each.file.path, each.writer.session, each.where) for each in found]


# --- which file it is ---------------------------------------------------------------------------


@proves("hook.collisions-across-machines")
@pytest.mark.parametrize(
    "other",
    ["https://example.com/acme/shop", "git@example.com:acme/shop.git", "example.com:acme/shop",
     "ssh://git@Example.com:2222/acme/shop.git/", "https://alice:secret@example.com/Acme/Shop.git"],
)  # fmt: skip
def test_one_repository_is_the_same_however_its_address_is_written(other):
    assert repository_of(other) == repository_of(SHOP) == "example.com/acme/shop"
    assert are_same(prints(), prints(origin=other, git="/home/b/src/other-name/.git"))


@proves("hook.collisions-across-machines")
@pytest.mark.parametrize(
    "here_alone", ["", "/srv/git/shop.git", "../shop", "~/shop", "file:///srv/shop", "shop",
                   "muster::hub/shop", "sub/dir:x", "https://", "https://example.com/"],
)  # fmt: skip
def test_a_place_of_one_machine_is_no_address_and_its_name_counts(here_alone):
    assert repository_of(here_alone) == ""
    assert are_same(prints(), prints(origin=here_alone, git="/home/b/Shop/.git"))
    own_name = here_alone.startswith("muster")
    assert are_same(prints(), prints(origin=here_alone, git="/home/b/site/.git")) == own_name


@proves("hook.collisions-across-machines")
def test_two_repositories_are_not_one_because_their_folders_have_one_name():
    assert not are_same(prints(), prints(origin="https://example.com/other/shop"))
    assert not are_same(prints(), prints("api2.py"))
    assert not are_same(Prints(), Prints())
    assert prints_of(SHOP, "", "api.py") == Prints(), "a file of no checkout is nobody's else"
    assert (name_of("", "/w/shop.git"), name_of("", "/w/shop/")) == ("shop", "shop")


@proves("hook.collisions-across-machines")
def test_a_path_is_the_same_however_a_disk_writes_its_letters_and_odd_ones_are_paths():
    assert prints("caf\u00e9.py") == prints("cafe\u0301.py")
    assert prints("a\ud800") != prints("a")


@proves("session.private")
def test_prints_are_hashes_and_name_no_path_folder_or_repository():
    for each in prints("secret/plan.md"):
        assert len(each) == 32
        assert int(each, 16) >= 0
    assert len({*prints(), *prints(git="/w/other/.git")}) == 3


# --- who hears of whom ----------------------------------------------------------------------------


@proves("hook.tells-of-collisions")
def test_both_sessions_hear_of_each_other_once_and_of_which_checkout():
    desk = Desk()
    desk.write(A)
    desk.write(B)
    assert desk.hears(B) == [("api.py", "shop-1", "here")]
    assert desk.hears(A) == [("api.py", "shop-2", "here")], "without a further write"
    desk.write(A)
    desk.write(B)
    assert desk.hears(A) == desk.hears(B) == []
    desk.write(B, root="/w/shop-tree", path="b.py")
    desk.write(A, path="b.py")
    desk.write(B, git="/w/clone/.git", root="/w/clone", path="c.py")
    desk.write(A, path="c.py")
    assert desk.hears(A) == [("b.py", "shop-2", "beside"), ("c.py", "shop-2", "beside")]


@proves("hook.tells-of-collisions")
def test_what_nobody_printed_is_told_again():
    desk = Desk()
    desk.write(A)
    desk.write(B)
    (met,) = desk.due(B)
    desk.told(B, met)
    assert desk.due(B) == []
    desk.again(B, met)
    assert desk.hears(B) == [("api.py", "shop-1", "here")]
    assert desk.hears(B) == []


@proves("hook.collisions-across-machines")
def test_a_session_hears_who_of_another_machine_wrote_its_file_by_its_own_path():
    desk = Desk()
    desk.write(A)
    desk.write(B, "other.py")
    desk.meet(("claude", "shop-9"))
    assert desk.hears(A) == [("api.py", "shop-9", "elsewhere")]
    assert desk.hears(B) == []
    desk.meet(("claude", "shop-9"))
    assert desk.hears(A) == []


@proves("hook.collisions-across-machines")
def test_a_write_of_a_quarter_of_an_hour_ago_meets_nobody():
    desk = Desk()
    desk.write(A)
    desk.ms = HOOK_TOUCHED_MS - 1
    assert desk.shared([prints()], desk.ms) == [(prints(), [(A, 0)])]
    desk.ms += 1
    assert desk.shared([prints()], desk.ms) == []
    desk.meet(("claude", "shop-9"))
    desk.write(B)
    assert desk.hears(A) == desk.hears(B) == []
    assert desk.recent(desk.ms) == [prints()]


# --- what other machines are told -----------------------------------------------------------------


@proves("hook.collisions-bounded")
def test_a_write_is_said_once_a_minute_and_each_call_holds_so_many():
    desk = Desk()
    desk.write(A)
    desk.write(B)
    assert desk.say(0) == [prints()]
    desk.ms = SAME_FILE_SAID_APART_MS - 1
    desk.write(A)
    assert not desk.is_unsaid
    desk.ms += 1
    desk.write(A)
    assert desk.say(desk.ms) == [prints()]
    for number in range(SAME_FILES_PER_CALL + 1):
        desk.write(A, f"{number}.py")
    assert [len(desk.say(desk.ms)) for _ in range(3)] == [SAME_FILES_PER_CALL, 1, 0]
    assert len(desk.recent(desk.ms)) == SAME_FILES_PER_CALL
    desk.wrote(A, File("", "/etc/x"), "", Prints(), desk.ms)
    assert not desk.is_unsaid


@proves("hook.collisions-bounded")
def test_another_machine_fills_no_memory_with_files_that_nobody_wrote_here():
    desk = Desk()
    desk.write(A)
    before = len(desk._sessions)
    for number in range(1_000):
        desk.meet(("claude", f"s-{number}"), path=f"{number}.py")
        desk.meet(("claude", f"s-{number}"), path="other.py")
    assert (len(desk._sessions), len(desk._writes), desk.due(A)) == (before, 1, [])


@proves("hook.collisions-bounded")
def test_what_is_asked_and_written_costs_nothing_of_what_else_is_kept_and_each_is_answered_once():
    few, many = Desk(), Desk()
    for number in range(HOOK_FILES_KEPT):
        many.write(A, f"{number}.py")
        if number < 20:
            few.write(A, f"{number}.py")
    said = {prints(f"{number}.py"): [("claude", "s", 0)] for number in range(-50, 14)}
    for deed in (
        lambda desk: desk.met(AWAY, said, 0),
        lambda desk: desk.shared(said, 0),
        lambda desk: [desk.write(B, f"{number}.py") for number in range(20)],
    ):
        assert calls(lambda deed=deed: deed(many)) < 2 * calls(lambda deed=deed: deed(few))
    assert len(many.shared([prints("1.py")] * 64, 0)) == 1
    assert many.hears(B)[0] == ("0.py", "shop-1", "here")


@proves("hook.collisions-bounded")
def test_what_is_kept_by_print_goes_with_the_write():
    desk = Desk()
    for who in (A, B):
        desk.write(who)
    desk.write(A, origin="https://example.com/acme/other")
    assert desk.shared([prints()], 0) == [(prints(), [(B, 0)])]
    desk.ms = HOOK_TOUCHED_MS
    assert desk.shared([prints()], desk.ms) == []
    assert desk._near == {}


@proves("hook.collisions-bounded")
def test_one_call_of_another_machine_makes_a_bounded_number_of_meetings_however_many_write():
    desk, files = Desk(), [f"{number}.py" for number in range(SAME_FILES_PER_CALL)]
    for number in range(20):
        for path in files:
            desk.write(Writer(HOME, "claude", f"shop-{number}"), path)
    others = [("claude", f"x-{number}", 0) for number in range(SAME_FILE_WRITERS_MAX)]
    said = {prints(path): others for path in files}
    desk.hears(first := Writer(HOME, "claude", "shop-0"))
    assert calls(lambda: desk.met(AWAY, said, 0)) < 20 * SAME_FILE_PAIRS_PER_CALL
    assert len(desk.due(first)) == SAME_FILES_TOLD_MAX


@proves("hook.collisions-bounded")
def test_of_one_machine_that_lies_a_session_hears_so_often_and_of_others_still():
    desk = Desk()
    desk.write(A)
    for number in range(1_000):
        desk.meet(("claude", f"s-{number}"))
    assert len(desk.hears(A)) == SAME_FILES_TOLD_MAX
    desk.meet(("claude", "late"))
    assert desk.hears(A) == []
    desk.meet(("claude", "honest"), machine="cc" * 32)
    assert desk.hears(A) == [("api.py", "honest", "elsewhere")]
    desk.ms = HOOK_TOUCHED_MS
    desk.write(A)
    desk.meet(("claude", "later"))
    assert desk.hears(A) == [("api.py", "later", "elsewhere")]


@proves("hook.collisions-bounded")
def test_what_is_kept_of_writes_sessions_and_notices_is_bounded():
    desk = Desk()
    for number in range(HOOK_FILES_KEPT + 5):
        desk.write(A, f"{number}.py")
    assert len(desk._writes) == len(desk._unsaid) == HOOK_FILES_KEPT
    desk.write(A, "x" * 5_000)
    assert File("/w/shop/.git", "x" * 5_000) not in {file for file, _ in desk._writes}
    for number in range(SAME_FILES_WAITING_MAX + 5):
        desk.write(B, f"{HOOK_FILES_KEPT - number}.py")
    assert len(desk.due(A)) == len(desk.due(B)) == SAME_FILES_WAITING_MAX
    for number in range(SESSIONS_MAX + 5):
        desk.due(Writer(HOME, "claude", f"s-{number}"))
    assert len(desk._sessions) == SESSIONS_MAX
    desk.ended(Writer(HOME, "claude", f"s-{SESSIONS_MAX}"))
    assert len(desk._sessions) == SESSIONS_MAX - 1


@proves("hook.collisions-bounded")
def test_what_a_session_heard_of_is_forgotten_at_last():
    desk = Desk()
    for number in range(HOOK_FILES_KEPT + 1):
        desk.write(A, f"{number}.py")
        desk.write(B, f"{number}.py")
        desk.hears(A)
    assert len(desk._sessions[A].told) == HOOK_FILES_KEPT
