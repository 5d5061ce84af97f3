"""Whether this machine can enclose anything, and why not: what needs it is skipped with that."""

import functools
import shutil
import subprocess
import sys


@functools.cache
def why_not() -> str:
    """ "" where it can."""
    if sys.platform != "linux":
        return "sandboxes are Linux's"
    if shutil.which("bwrap") is None:
        return "needs bubblewrap (apt: bubblewrap)"
    tried = subprocess.run(
        ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, check=False
    )
    return "" if tried.returncode == 0 else f"bubblewrap: {tried.stderr.decode().strip()}"
