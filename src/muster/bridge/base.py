"""What every chat bridge is: what it hears, what it posts, and how it fails.

Rule 1: a bridge passes on what somebody said or pressed, and by which account of the service: never
by a name, which anybody may take. What that means, and whether it may be, the daemon decides.
Rule 2: `hear` returns once what was heard is durable; only then may the service be told so, and
only then does its cursor move. Whatever comes twice is heard twice, under the same id.
Rule 3: what its own account says, what was edited and what was deleted is not heard.
Rule 4: a post is plain words: nothing in it calls anybody, is a link to elsewhere than it says, or
looks other than it is (words.py). What is too long is cut with a mark.
Rule 5: a bridge raises, and never begins again by itself, but for what the service asks for: to
wait. The daemon starts it anew.

    Denied       the token is not accepted (any more): a person must give another one
    Unreachable  the service does not answer, or the connection broke
    Slow         the service asks to wait for so many seconds
    Malformed    the service does not take this post; others it may

Rule 6: whoever may write in a room ends no bridge by what is written. What comes and cannot be read
is passed over, and the daemon is told of it.
Rule 7: a bridge works once what it listens to has answered, and says so by what it hears first.
Where it was is a place of one bot at one server: of another one it begins from now on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, ClassVar, Final, Protocol, TypeVar

from msgspec import Meta, Struct

from muster.errors import Unreachable

# What a daemon takes of one thing that was heard; the rest is left out with a mark.
HEARD_CHARS_MAX: Final = 16_000
CURSOR_CHARS_MAX: Final = 16_000
# The longest pause that a service may ask for before its process ends, and begins again.
WAIT_S_MAX: Final = 300.0

T = TypeVar("T")
Name = Annotated[str, Meta(max_length=512)]


class Slow(Unreachable):
    """The service asks to wait."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"the service asks to wait for {wait_s:.0f} s")
        self.wait_s = wait_s


class Limits(Struct, frozen=True):
    """What a service takes: letters of a post, buttons below it, bytes that a button carries."""

    text_chars: int
    buttons: int
    data_bytes: int


class Button(Struct, frozen=True):
    """`data` comes back when it is pressed; `sign` stands for it where there are only reactions."""

    data: str
    label: str
    sign: str


class Post(Struct, frozen=True):
    """What is to be read in a room, in the thread that `thread` began where it is said."""

    room: str
    text: str
    buttons: tuple[Button, ...] = ()
    thread: str = ""


class Said(Struct, frozen=True, tag="said"):
    """`private`: nobody reads it but the account and the bridge. `thread`: the post it answers.
    `below`: what an answer to it in its room stands below, "" where that stands by itself.
    """

    id: Name
    workspace: Name
    account: Name
    room: Name
    private: bool
    text: Annotated[str, Meta(max_length=HEARD_CHARS_MAX)]
    thread: Name = ""
    below: Name = ""


class Pressed(Struct, frozen=True, tag="pressed"):
    """A button of the post `ref` was pressed."""

    id: Name
    workspace: Name
    account: Name
    room: Name
    ref: Name
    data: Name


class Passed(Struct, frozen=True, tag="passed"):
    """Nothing to be heard; the cursor moved. `odd` says why something could not be read."""

    odd: Name = ""


Heard = Said | Pressed | Passed


async def patient(ask: Callable[[], Awaitable[T]]) -> T:
    """What the service answers, asked again after each pause that it wants.

    Raises: as `ask`; Slow where it wants a longer one than `WAIT_S_MAX`.
    """
    while True:
        try:
            return await ask()
        except Slow as slow:
            if slow.wait_s > WAIT_S_MAX:
                raise
            await asyncio.sleep(slow.wait_s)


class Hear(Protocol):
    """Returns when what was heard, and the cursor (where it is not ""), is durable."""

    async def __call__(self, heard: Heard, cursor: str = "") -> None: ...


class Bridge(Protocol):
    """One connection to one service, with a token; see the rules at the top of this file."""

    limits: ClassVar[Limits]

    def __init__(self, token: str, options: Mapping[str, Any]) -> None:
        """Connects nothing yet."""

    async def begin(self) -> str:
        """Which bot the service says it is. Called before all else."""

    async def run(self, cursor: str, hear: Hear) -> None:
        """Hear what came since `cursor` ("": from now on), in the order of each room; until it
        fails. As soon as the service has answered, something is heard, be it that nothing came;
        from then on `post` and `edit` are called meanwhile.
        """

    async def post(self, post: Post, key: str) -> str:
        """Show it and return what it is called there; with an equal `key` once, where the service
        can tell.
        """

    async def edit(self, ref: str, post: Post, key: str) -> None:
        """Show this instead. `key` is of this change: what was shown before may come again."""

    async def close(self) -> None:
        """Let go of what is held open."""
