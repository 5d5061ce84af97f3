"""Every secret that this machine can read, to be masked in what leaves it.

Rule 1: the values are read anew where the index changed: what is set now is masked in what leaves
next.
Rule 2: what was given to a process is masked as long as it has it, whatever the store has now.
Rule 3: where the store cannot be read, there is no mask, and nothing leaves. A keychain that gives
nothing gave nothing to anybody who could say it; it is asked again once in `AGAIN_S`, as it may
be open by then.
"""

import asyncio
from typing import Final

from muster.agent.mask import Secrets
from muster.errors import Broken, NotFound, Unreachable, unable
from muster.node.host.secret_store import INDEX, SecretStore

AGAIN_S: Final = 60.0


class SecretMask:
    """See the rules at the top of this file. `last` is the mask as it was made last."""

    def __init__(self, store: SecretStore) -> None:
        self._store = store
        self._given: dict[str, tuple[str, str]] = {}
        # What the mask was made of: the index, and what was given to whom.
        self._of: object = None
        self._making = asyncio.Lock()
        # Whether a keychain did not give all, and since when.
        self._lacks, self._made_s = False, 0.0
        self._had: dict[str, str] = {}
        self.last = Secrets({})

    async def take(self, whom: str, name: str) -> str:
        """The value of a secret, masked until `whom` takes another one.

        Raises: NotFound, Broken, Exhausted, Unreachable.
        """
        value = await asyncio.to_thread(self._store.value, name)
        self._given[whom] = (name, value)
        await self.now()
        return value

    async def now(self) -> Secrets:
        """The mask for a text that leaves now. Raises: Broken, Exhausted."""
        async with self._making:
            # Looked at before it is read: what changes meanwhile is read once more.
            of = (self._stamp(), dict(self._given))
            now_s = asyncio.get_running_loop().time()
            if of != self._of or (self._lacks and now_s - self._made_s >= AGAIN_S):
                self.last = await asyncio.to_thread(self._made, list(self._given.values()))
                self._of, self._made_s = of, now_s
            return self.last

    def _stamp(self) -> tuple[int, ...]:
        """Another one after each change of the index."""
        path = self._store.folder / INDEX
        try:
            found = path.lstat()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise unable(f"{path} cannot be read: {error.strerror}", error) from error
        return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)

    def _made(self, given: list[tuple[str, str]]) -> Secrets:
        made = Secrets(self._values())
        for name, value in given:
            made = made.beside({name: value})
        return made

    def _values(self) -> dict[str, str]:
        """Blocks: a keychain may ask its person."""
        found, lacks = self._store.hidden(), False
        known = self._store.known()
        in_keychain = [name for name, kept in known.items() if kept.place == "keychain"]
        # What it gave before is masked until it says something else.
        found |= {name: self._had[name] for name in in_keychain if name in self._had}
        for name in in_keychain:
            try:
                found[name] = self._had[name] = self._store.value(name)
            except NotFound:
                # What is no secret any more, no program was given since.
                found.pop(name, None)
            except Broken:
                # It is asked for again after a while.
                lacks = True
            except Unreachable:
                # It would let us wait for each of the others as long.
                lacks = True
                break
        self._lacks = lacks
        return found
