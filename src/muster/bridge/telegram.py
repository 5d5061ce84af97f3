"""Telegram: a bot's updates, read by `getUpdates`.

Rule 1: the cursor is the number of the next update. An update is forgotten by the service once a
higher one was asked for, and that is done only when it is durable here.
Rule 2: edits are not asked for, and messages in the name of a channel or a group have no account.
Rule 3: text is posted as text: without a mode of markup nothing in it is read as any.
"""

import os
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, LinkPreviewOptions, Update
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
)
from telegram.request import HTTPXRequest

from muster.bridge.base import Hear, Limits, Passed, Post, Pressed, Said, Slow, patient
from muster.bridge.words import plain
from muster.errors import Denied, Malformed, Unreachable

# It gives spans as such, and does not warn that it once did not.
os.environ.setdefault("PTB_TIMEDELTA", "1")

T = TypeVar("T")
LIMITS: Final = Limits(text_chars=4_096, buttons=3, data_bytes=64)
_SERVER: Final = "https://api.telegram.org"
_POLL_S: Final = 30
_WANTED: Final = ["message", "callback_query"]


class Telegram:
    """See the rules at the top of this file. `options` may have the `url` of another server."""

    limits: ClassVar[Limits] = LIMITS

    def __init__(self, token: str, options: Mapping[str, Any]) -> None:
        where = str(options.get("url") or _SERVER)
        polls = HTTPXRequest(read_timeout=_POLL_S + 10)
        self._bot = Bot(token, base_url=f"{where}/bot", get_updates_request=polls)

    async def begin(self) -> str:
        """See the contract."""
        await _asked(self._bot.initialize())
        return str(self._bot.id)

    async def run(self, cursor: str, hear: Hear) -> None:
        """See the contract."""
        offset = int(cursor) if cursor.isdecimal() else -1
        if offset < 0:
            last = await self._updates(-1, 0)
            offset = last[-1].update_id + 1 if last else 0
            await hear(Passed(), str(offset))
        wait_s = 0
        while True:
            updates = await self._updates(offset, wait_s)
            if not wait_s:
                await hear(Passed())
            wait_s = _POLL_S
            for update in updates:
                offset = update.update_id + 1
                await self._heard(update, hear)

    async def _updates(self, offset: int, wait_s: int) -> tuple[Update, ...]:
        ask = partial(self._bot.get_updates, offset=offset, timeout=wait_s, allowed_updates=_WANTED)
        return await patient(lambda: _asked(ask()))

    async def _heard(self, update: Update, hear: Hear) -> None:
        cursor, query, message = str(update.update_id + 1), update.callback_query, update.message
        if query is not None and query.message is not None and query.data:
            where = query.message
            ref = f"{where.chat.id}/{where.message_id}"
            pressed = Pressed(
                f"q{query.id}", "", str(query.from_user.id), str(where.chat.id), ref, query.data
            )
            await hear(pressed, cursor)
            try:
                await patient(lambda: _asked(self._bot.answer_callback_query(query.id)))
            except Malformed:
                # It waits for so long only; that it was heard is kept all the same.
                return
            return
        user = message.from_user if message is not None else None
        if message is None or user is None or user.is_bot or message.sender_chat is not None:
            await hear(Passed(), cursor)
            return
        text, chat = message.text or "", message.chat
        answered = message.reply_to_message
        thread = f"{chat.id}/{answered.message_id}" if answered is not None else ""
        # Each bot counts what is said to it in private by itself.
        id_ = f"m{self._bot.id}.{chat.id}/{message.message_id}"
        private = chat.type == "private"
        await hear(Said(id_, "", str(user.id), str(chat.id), private, text, thread), cursor)

    async def post(self, post: Post, key: str) -> str:  # noqa: ARG002 - the service cannot tell
        """See the contract: what is asked for twice stands there twice."""
        number = post.thread.rpartition("/")[2]
        below = int(number) if number.isdecimal() else None
        sent = await _asked(
            self._bot.send_message(
                post.room,
                plain(post.text, LIMITS.text_chars),
                reply_markup=_keys(post),
                reply_to_message_id=below,
                allow_sending_without_reply=True,
                link_preview_options=LinkPreviewOptions(is_disabled=True),
            )
        )
        return f"{sent.chat.id}/{sent.message_id}"

    async def edit(self, ref: str, post: Post, key: str) -> None:  # noqa: ARG002 - as of `post`
        """See the contract."""
        room, _, number = ref.rpartition("/")
        if not number.isdecimal():
            raise Malformed(f"{ref[:60]!r} is no post of Telegram")
        try:
            await _asked(
                self._bot.edit_message_text(
                    plain(post.text, LIMITS.text_chars),
                    room,
                    int(number),
                    reply_markup=_keys(post),
                    link_preview_options=LinkPreviewOptions(is_disabled=True),
                )
            )
        except Malformed as error:
            if "not modified" not in str(error):
                raise

    async def close(self) -> None:
        """See the contract."""
        await self._bot.shutdown()


def _keys(post: Post) -> InlineKeyboardMarkup | None:
    if not post.buttons:
        return None
    row = [
        InlineKeyboardButton(f"{each.sign} {each.label}", callback_data=each.data)
        for each in post.buttons
    ]
    return InlineKeyboardMarkup([row])


async def _asked(work: Awaitable[T]) -> T:
    """The answer of the service. Raises: as the contract says."""
    try:
        return await work
    except RetryAfter as error:
        wait = error.retry_after
        wait_s = wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
        raise Slow(wait_s) from error
    except InvalidToken as error:
        raise Denied("Telegram does not accept the token") from error
    except Conflict as error:
        raise Unreachable("another program reads the updates of this bot, too") from error
    except ChatMigrated as error:
        raise Malformed(f"the group is another one now: its room is {error.new_chat_id}") from error
    except (BadRequest, Forbidden) as error:
        raise Malformed(f"Telegram refuses it: {error}") from error
    except NetworkError as error:
        raise Unreachable(f"Telegram does not answer: {error}") from error
    except TelegramError as error:
        raise Unreachable(f"Telegram answers: {error}") from error


BRIDGE: Final = Telegram
