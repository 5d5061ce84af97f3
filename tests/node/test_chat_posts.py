"""What is wanted while a bridge is away, and what a minute has room for."""

from tests.counters import grows
from tests.node.chats import ROOM, SERVICE, ChatFleet, within
from tests.promise import proves

from muster.node.services.chat_posts import (
    FRESH_MS,
    POSTS_OF_ONE_MAX,
    POSTS_PER_MINUTE_MAX,
    WAITING_MAX,
    BridgeShow,
    BridgeShown,
    ChatPosts,
)

YES = "y" + "0" * 32


class Wanted:
    """A fleet, and what is wanted of its bridge without anybody who asks."""

    def __init__(self) -> None:
        self.fleet = ChatFleet()
        self.hub, self.posts = self.fleet.hub, self.fleet.hub.core.part(ChatPosts)

    def want(self, key: str, *buttons: str, text: str = "?", whose: str = "") -> None:
        self.posts.want(SERVICE, key, ROOM, text, buttons, whose=whose)

    def wants(self, key: str, *buttons: str, text: str = "?", whose: str = "") -> None:
        within(self.hub, lambda: self.want(key, *buttons, text=text, whose=whose))

    def end(self, key: str) -> None:
        row = self.posts.find(SERVICE, key=key)
        assert row is not None
        self.posts.end(row, "it is over")

    def ends(self, key: str) -> None:
        within(self.hub, lambda: self.end(key))

    def taken(self) -> BridgeShow:
        """What the bridge is given now, and does not answer yet."""
        (given,) = [each for each in self.hub.effects if isinstance(each, BridgeShow)]
        self.hub.effects.clear()
        return given

    def shown(self) -> list[str]:
        return sorted(self.fleet.times)


@proves("chat.incidents")
def test_what_is_over_before_it_was_posted_is_told_nobody_and_takes_no_room():
    world = Wanted()
    fleet, nas = world.fleet, world.fleet.world["nas"].id[:32]
    fleet.down()

    def flood() -> None:
        for number in range(WAITING_MAX + 5):
            world.want(f"q/{nas}/{number}", YES)
            world.end(f"q/{nas}/{number}")
        world.want(f"q/{nas}/live", YES)
        world.want(f"i/{nas}/again", YES)
        world.end(f"i/{nas}/again")
        world.want(f"i/{nas}/again", YES)

    with grows(world.hub.core, "chat-posts-cut", 0):
        within(world.hub, flood)
    # So it is where a question is still asked however late; of anything else nobody wants to know.
    world.wants("h/answer")
    fleet.world.ms += FRESH_MS
    with grows(world.hub.core, "chat-posts-old"):
        fleet.up()
    assert world.shown() == [f"i/{nas}/again", f"q/{nas}/live"]
    assert fleet.times == dict.fromkeys(world.shown(), 1)
    # What a bridge was given before it ended may be there: it is told what came of it.
    world.wants(f"q/{nas}/given", YES)
    world.taken()
    fleet.down()
    world.ends(f"q/{nas}/given")
    fleet.up()
    assert fleet.text(f"q/{nas}/given").endswith("it is over")
    # What was refused is there for nobody.
    world.wants(f"q/{nas}/refused", YES)
    given = world.taken()
    world.ends(f"q/{nas}/refused")
    fleet.hub.step(BridgeShown(SERVICE, given.number, refused="it is too long"))
    fleet.serve()
    assert f"q/{nas}/refused" not in world.shown()


@proves("chat.incidents")
def test_a_full_minute_takes_nothing_of_what_one_account_or_machine_may_say_in_the_next():
    world = Wanted()
    fleet, nas = world.fleet, world.fleet.world["nas"].id[:32]
    for sort, mine, whose in (("h/", "h/bob", "bob"), ("i/", f"i/{nas}/", "")):
        fleet.world.ms += 60_000
        others = ("x", "y") if sort == "i/" else ("", "")

        def flood(sort: str = sort, others: tuple[str, str] = others) -> None:
            for number in range(POSTS_PER_MINUTE_MAX):
                key = f"{sort}{others[number % 2]}/{number}"
                world.want(key, *([YES] if sort == "i/" else []))

        within(world.hub, flood)
        fleet.serve()
        # The minute of all has no room, however often somebody asks.
        fleet.world.ms += 50_000
        for number in range(POSTS_OF_ONE_MAX):
            world.wants(f"{mine}{number}", *([YES] if sort == "i/" else []), whose=whose)
        fleet.serve()
        assert not [key for key in world.shown() if key.startswith(mine)], sort
        fleet.world.ms += 11_000
        world.wants(f"{mine}now", *([YES] if sort == "i/" else []), whose=whose)
        within(world.hub, world.posts.tick)
        fleet.serve()
        assert [key for key in world.shown() if key.startswith(mine)], sort


@proves("chat.incidents")
def test_a_post_of_an_older_version_says_what_came_of_its_incident():
    """Its key did not say since when; one of another incident's that goes on behind a slash."""
    world = Wanted()
    fleet, about = world.fleet, f"i/{world.fleet.world['nas'].id[:32]}"
    for key in ("disk", "disk/tmp"):
        world.wants(f"{about}/{key}", YES, text=f"warning: nas: {key}")
    fleet.serve()
    fleet.incident("disk", "the disk is full")
    assert fleet.shown["$0"].post.text.endswith("it is told anew")
    assert fleet.text("i/") == "warning: nas: the disk is full"
    fleet.over("disk")
    assert not fleet.buttons(f"{about}/disk/1")
    assert fleet.shown["$1"].post.text == "warning: nas: disk/tmp"
    world.wants(f"{about}/clock", YES, text="warning: nas: clock")
    within(
        fleet.world["nas"], lambda: fleet.world["nas"].core.incidents.open("clock", "notice", "x")
    )
    fleet.over("clock", "it is right")
    assert fleet.text(f"{about}/clock").endswith("it is over: it is right")
