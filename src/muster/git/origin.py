"""Where a repository of ours was taken from, and whether it goes on following that.

Rule 1: it is a file beside the configuration, which has to be exactly ours: the origin is data.
Rule 2: no address with a secret in it is taken: addresses are shown, and are arguments of git. A
fetch lets git ask the person's own helpers for secrets, see `logins` of `command.run_async`.
Rule 3: a repository without the file (made before there was one) follows nothing.
"""

import re
from pathlib import Path
from typing import Final

import msgspec

from muster.atomic_file import write_file
from muster.errors import Damaged, Refused, unable

FILE: Final = "muster-origin.json"

_FILE_BYTES_MAX: Final = 64 * 1024
# However many helpers of git are named before it: `https::https://…`.
_WEB: Final = re.compile(r"(?:.*:)?https?:/+([^/@]*@)?([^/?#]*)[^?#]*([?#].*)?", re.IGNORECASE)
_WITH_PASSWORD: Final = re.compile(r"(?:.*:)?[a-z0-9+.-]+://[^/@:]*:[^/@]*@", re.IGNORECASE)


class Origin(msgspec.Struct, frozen=True):
    """An origin's address, or its folder as a whole path.

    `head` is the default branch that it had when it was last fetched, `error` why it could not be
    fetched since `synced_ms`; `unlike` the branches that it has otherwise.
    """

    address: str
    follows: bool
    head: str = ""
    synced_ms: int = 0
    error: str = ""
    unlike: list[str] = []


def check_address(text: str) -> None:
    """Raises: Refused for an address that holds a secret, which is not repeated."""
    found = _WEB.fullmatch(text)
    if found is not None and (found[1] or found[3]):
        host = found[2] if found[2].isprintable() else "HOST"
        raise Refused(
            "This address holds a name, a password or a token, and addresses are written down: "
            "leave it out. Git asks the helpers that are set up for whoever runs the daemon (`git "
            f"config --global credential.helper store`, `gh auth setup-git`), and `git config "
            f"--global credential.https://{host}.username NAME` says who you are there."
        )
    if _WITH_PASSWORD.match(text):
        raise Refused(
            "This address holds a password, and addresses are written down: leave it out, and use "
            "a key (`ssh-copy-id`) that ssh finds without asking."
        )


def read(repo: Path) -> Origin | None:
    """The origin of a repository; None where it has none. Raises: Damaged."""
    try:
        with (repo / FILE).open("rb") as file:
            raw = file.read(_FILE_BYTES_MAX)
        return msgspec.json.decode(raw, type=Origin)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unable(f"{repo / FILE} cannot be read: {error}.", error) from error
    except msgspec.DecodeError as error:
        raise Damaged(
            f"{repo / FILE} is damaged ({error}); remove that file, and the repository follows "
            "nothing, or `muster repo remove` it and add it anew."
        ) from error


def write(repo: Path, origin: Origin) -> None:
    """Keep an origin, whole or not at all."""
    write_file(repo / FILE, msgspec.json.encode(origin))
