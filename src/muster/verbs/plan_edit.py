"""A plan in a person's own editor, before anything of it runs.

Rule: what comes back is text of a person like any other spec: it counts when `check` has nothing
against it, and its size is looked at before anything else.
"""

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from muster.errors import Broken, Malformed
from muster.limits import SPEC_BYTES_MAX

# What every Unix has.
EDITOR: Final = "vi"


def edited(spec: str) -> str:
    """The spec as the person leaves it. The editor is that of VISUAL, else EDITOR, else vi.

    Raises: Broken where the editor cannot be started or fails; Malformed where what it left is no
    text that a spec can be. The plan is lost then, and shown before.
    """
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or EDITOR
    try:
        words = shlex.split(named)
    except ValueError as error:
        raise Broken(f"EDITOR is {named!r}, which is no command: {error}") from error
    with tempfile.TemporaryDirectory(prefix="muster-plan-") as folder:
        file = Path(folder) / "plan.yaml"
        file.write_text(spec, encoding="utf-8")
        try:
            done = subprocess.run([*words, str(file)], check=False)
        except OSError as error:
            raise Broken(f"{named} cannot be started: {error}; set EDITOR") from error
        if done.returncode:
            raise Broken(f"{named} ended with {done.returncode}, so nothing was run")
        try:
            size = file.stat().st_size
            if size > SPEC_BYTES_MAX:
                raise Malformed(f"the plan has {size} bytes and {SPEC_BYTES_MAX} are allowed")
            return file.read_bytes().decode("utf-8")
        except OSError as error:
            raise Broken(f"{named} left no plan: {error}") from error
        except UnicodeDecodeError as error:
            raise Malformed(f"the plan is no text in UTF-8: {error}") from error
