"""What a step of letting go costs is bounded, whatever others wrote, and nobody holds it up."""

from tests.node.shared_folders import SharedFolders, write
from tests.node.test_retention import (
    OLD,
    disks_say,
    later,
    let_go,
    look_through,
    often,
    text,
)
from tests.promise import proves

from muster.context.kinds import ContextAt, ContextPut
from muster.limits import CONTEXT_BESIDE_MAX, CONTEXT_KEPT_MS, CONTEXT_KEPT_NEWEST
from muster.node.host.clock import Now
from muster.node.services.retention import EVERY_MS, Retention

# Questions of one step and rows that answer them: some 20 ms.
STEP_MAX = 2_500


def costs(world: SharedFolders, name: str, monkeypatch) -> list[int]:
    """What is asked and read in each step of the look of a day on a machine."""
    core, found, read = world.cores[name].core, list[int](), 0
    part, tables = core.part(Retention), core.tables

    def counted(ask):
        def one(*args, **more):
            nonlocal read
            answer = ask(*args, **more)
            read += 1 + (len(answer) if isinstance(answer, list) else 0)
            return answer

        return one

    with monkeypatch.context() as patch, core.store.transaction():
        for each in ("query", "rows"):
            patch.setattr(tables, each, counted(getattr(tables, each)))
        part._due_ms = 0
        part.tick()
        while part._walk is not None:
            core.of_step.clear()
            read = 0
            part._go_on()
            found.append(read)
        core.store.seal_dirty(core.membership.signer("seal"))
    part._due_ms = 2**62
    return found


@proves("context.let-go-in-small-steps")
def test_folders_that_nobody_has_are_looked_at_a_few_in_a_step(tmp_path, monkeypatch):
    """All of them were, in one."""
    world = SharedFolders(tmp_path, "hub", "studio", writers=["hub"])
    often(world, "hub")
    for n in range(0, 2_000, 500):
        names = [f"f{each}" for each in range(n, n + 500)]
        write(world, "studio", *(ContextAt(each, "0" * 64) for each in names))
        write(world, "studio", *(ContextPut(each, "n.md") for each in names))
    world.cores.pass_ms(5_000)
    disks_say(world, "hub")
    later(world)
    found = costs(world, "hub", monkeypatch)
    assert max(found) <= STEP_MAX
    assert len(found) > 100
    assert len(let_go(world, "hub")) == OLD


@proves("context.let-go-in-small-steps")
def test_what_many_versions_have_the_bytes_of_is_looked_at_a_little_in_a_step(
    tmp_path, monkeypatch
):
    world = SharedFolders(tmp_path, "hub", "studio")
    ids = often(world, "hub", times=CONTEXT_KEPT_NEWEST + 21)
    over = list[str]()
    for _ in range(CONTEXT_BESIDE_MAX - 1):
        same = [ContextPut("notes", "q.md", over[-1:], same=id.hex()) for id in ids[1:21]]
        over += [id.hex() for id in write(world, "studio", *same)]
    last = write(world, "studio", ContextPut("notes", "q.md", over[-16:], text(0)))[0]
    for n in range(CONTEXT_KEPT_NEWEST + 9):
        body = ContextPut("notes", "q.md", [last.hex()], text(n))
        (last,) = write(world, "studio", body)
    world.settle()
    disks_say(world)
    later(world)
    assert max(costs(world, "hub", monkeypatch)) <= STEP_MAX


@proves("context.not-writers-cost-nothing")
def test_who_may_not_write_keeps_no_bytes_back(tmp_path):
    """By naming them, or by a folder that it says it has: for ever, and nobody was told."""
    world = SharedFolders(tmp_path, "hub", "studio", "bad", writers=["hub", "studio"])
    ids = often(world, "hub", "studio")
    disks_say(world, "hub", "studio")
    names = [ContextPut("notes", f"{n}.md", same=id.hex()) for n, id in enumerate(ids[:OLD])]
    write(world, "bad", *names, ContextAt("notes", "0" * 64))
    later(world)
    look_through(world, "hub", "studio")
    look_through(world, "hub", "studio")
    assert let_go(world, "hub") == let_go(world, "studio") == ids[2 : OLD + 1]
    # What one wrote that may is still needed.
    again = often(world, "hub", "studio", path="m.md")
    write(world, "studio", ContextPut("notes", "copy.md", same=again[3].hex()))
    world.settle()
    disks_say(world, "hub", "studio")
    later(world)
    look_through(world, "hub", "studio")
    look_through(world, "hub", "studio")
    assert let_go(world, "hub", "m.md") == [again[2], *again[4 : OLD + 1]]


@proves("context.let-go-when-nobody-needs-it")
def test_a_daemon_that_starts_with_a_clock_of_next_month_lets_nothing_go_at_once(
    tmp_path, monkeypatch
):
    """While it runs, the clock by which it goes follows no jump; but it begins with what it finds."""
    world = SharedFolders(tmp_path, "hub", "studio")
    ids = often(world, "hub")
    disks_say(world)
    later(world, 2 * EVERY_MS)
    world.cut()
    real = world.cores.now
    ahead = Now(0, CONTEXT_KEPT_MS)
    monkeypatch.setattr(
        world.cores, "now", lambda: Now(real().boot_ms, real().wall_ms + ahead.wall_ms)
    )
    world.cores.restart("hub")
    world.cores.link("hub", "studio")
    world.cores.pass_ms(2_000)
    look_through(world, "hub")
    assert let_go(world, "hub") == []
    # As it is a day later, it is.
    world.cores.ms += EVERY_MS
    look_through(world, "hub")
    assert let_go(world, "hub") == ids[1 : OLD + 1]


@proves("context.let-go-when-nobody-needs-it")
def test_a_daemon_that_starts_believes_its_clock_where_others_say_as_much(tmp_path):
    """A machine that is started each morning lets go, too."""
    world = SharedFolders(tmp_path, "hub", "studio")
    ids = often(world, "studio", "hub")
    disks_say(world)
    later(world)
    write(world, "studio", ContextAt("notes", "1" * 64))
    disks_say(world)
    world.cut()
    world.cores.restart("hub")
    world.cores.link("hub", "studio")
    world.cores.pass_ms(2_000)
    look_through(world, "hub")
    assert set(let_go(world, "hub")) <= set(ids[1 : OLD + 1])
    assert let_go(world, "hub")
