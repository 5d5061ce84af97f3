"""A secret in a real keychain: the Secret Service of a desktop, on a bus of its own."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.e2e.fleet import ROOT
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

VALUE = "canary-in-a-keychain-4f1c88\nof two lines\n"
# The keychain is unlocked by a password on its standard input, as a login does it.
UNLOCKS = """
printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1
exec "$@"
"""
USES = f"""
import sys, time
from pathlib import Path
from muster.node.host import keychain
from muster.node.host.secret_store import SecretStore
from muster.task.secret import Grant, Wanted
until = time.monotonic() + 30
while (found := keychain.find()) is None and time.monotonic() < until:
    time.sleep(0.1)
assert found is not None and type(found).__module__ == "keyring.backends.SecretService", found
store, value = SecretStore(Path(sys.argv[1])), {VALUE!r}
assert store.put("DEPLOY_TOKEN", value, 1) == "keychain"
store.grant("DEPLOY_TOKEN", Grant("shell", "release", "publish"))
wanted = Wanted(("DEPLOY_TOKEN",), "release", "publish")
assert SecretStore(store.home).taken(wanted, "shell", 2).given == {{"DEPLOY_TOKEN": value}}
assert store.put("DEPLOY_TOKEN", value + "anew", 3) == "keychain"
assert store.taken(wanted, "shell", 4).given == {{"DEPLOY_TOKEN": value + "anew"}}
service = store.index().service
assert found.get_password(service, "DEPLOY_TOKEN") == value + "anew"
assert store.remove("DEPLOY_TOKEN") == "keychain"
assert found.get_password(service, "DEPLOY_TOKEN") is None
print("well")
"""


@proves("secret.contract", "secret.real-keychains")
def test_a_secret_lies_in_the_keychain_of_a_desktop_and_in_no_file(tmp_path):
    for program in ("dbus-run-session", "gnome-keyring-daemon"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here; .ci/run installs it")
    home, run = tmp_path / "home", tmp_path / "run"
    for folder in (home, run):
        folder.mkdir(mode=0o700)
    env = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"),
           "XDG_RUNTIME_DIR": str(run), "PYTHONPATH": str(ROOT / "src")}  # fmt: skip
    words = ["dbus-run-session", "--", "sh", "-c", UNLOCKS, "sh", sys.executable, "-c", USES]
    done = subprocess.run([*words, str(home)], env=env, cwd=ROOT, capture_output=True, text=True,
                          timeout=100, check=False)  # fmt: skip
    assert done.stdout.strip().endswith("well"), done
    first = VALUE.split("\n", maxsplit=1)[0].encode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if first in path.read_bytes()]
