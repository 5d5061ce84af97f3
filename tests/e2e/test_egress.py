"""Real programs that reach a real server of https through the proxy of a sandbox, and no other."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from muster.agent.egress import Decision, Proxy, Rules
from tests.agent.egress.site import certificates, site
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
HOST = "files.test"
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@a.test"]


class World:
    """A site, a proxy that lets `files.test` alone through, and what a program inside would be given."""

    def __init__(self, folder: Path, ca: Path, secure: int, plain: int) -> None:
        self.pages, self.told = folder / "pages", list[Decision]()
        self._home = folder / "home"
        self._home.mkdir()
        self._ports, self._ca = {443: secure, 80: plain}, ca

    def run(
        self, *command: str | Path, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What a program that has the proxy says, and how it ends."""

        async def resolve(host: str, port: int) -> list[str]:
            return ["198.41.0.4"]

        async def connect(address: str, port: int):
            return await asyncio.open_connection("127.0.0.1", self._ports[port], limit=65536)

        async def main() -> subprocess.CompletedProcess[str]:
            rules = Rules.read([HOST, f"{HOST}:80"])
            proxy = Proxy(rules, self.told.append, resolve=resolve, connect=connect)
            listening = socket.create_server(("127.0.0.1", 0))
            await proxy.serve(listening)
            given = f"http://127.0.0.1:{listening.getsockname()[1]}"
            environment = {
                "PATH": os.environ["PATH"], "HOME": str(self._home), "GIT_TERMINAL_PROMPT": "0",
                "GIT_SSL_CAINFO": str(self._ca), "PIP_CERT": str(self._ca), "npm_config_cafile": str(self._ca),
                "CURL_CA_BUNDLE": str(self._ca), "SSL_CERT_FILE": str(self._ca), "PIP_CONFIG_FILE": os.devnull,
                "npm_config_update_notifier": "false", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                "NODE_EXTRA_CA_CERTS": str(self._ca), "NODE_USE_ENV_PROXY": "1", "GIT_CONFIG_NOSYSTEM": "1",
            }  # fmt: skip
            for name in ("http_proxy", "https_proxy"):
                environment |= {name: given, name.upper(): given}
            run = await asyncio.create_subprocess_exec(
                *map(str, command), cwd=cwd or self._home, env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            out, err = await run.communicate()
            await proxy.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return subprocess.CompletedProcess(
                command, run.returncode or 0, out.decode(), err.decode()
            )

        return uvloop.run(main())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    ca, secret = certificates(tmp_path, HOST, "other.test")
    (tmp_path / "pages").mkdir()
    with site(tmp_path / "pages", secret) as secure, site(tmp_path / "pages", None) as plain:
        yield World(tmp_path, ca, secure, plain)


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on this machine")
    return found


@proves("egress.real-programs")
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_git_clones_and_pushes_and_reaches_no_other_host(world, tmp_path, scheme):
    bare, work = world.pages / "a.git", tmp_path / "work"
    subprocess.run([*GIT, "init", "-q", "--bare", "-b", "main", bare], check=True)
    subprocess.run([*GIT, "-C", bare, "config", "http.receivepack", "true"], check=True)
    first = world.run("git", "clone", "-q", f"{scheme}://{HOST}/a.git", work)
    assert first.returncode == 0, first.stderr
    (work / "large").write_bytes(os.urandom(3_000_000))
    subprocess.run([*GIT, "-C", work, "checkout", "-q", "-B", "main"], check=True)
    subprocess.run([*GIT, "-C", work, "add", "."], check=True)
    subprocess.run([*GIT, "-C", work, "commit", "-q", "-m", "x"], check=True)
    # Larger than what git sends with its length: it comes in chunks.
    pushed = world.run("git", "push", "-q", "origin", "main", cwd=work)
    assert pushed.returncode == 0, pushed.stderr
    again = world.run("git", "clone", "-q", f"{scheme}://{HOST}/a.git", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / "large").read_bytes() == (work / "large").read_bytes()
    assert {(each.host, each.allowed) for each in world.told} == {(HOST, True)}
    assert sum(each.sent_bytes for each in world.told) > 3_000_000
    assert "a.git" not in repr(world.told)
    other = world.run("git", "clone", "-q", f"{scheme}://other.test/a.git", tmp_path / "other")
    assert other.returncode != 0
    assert "403" in other.stderr
    assert world.told[-1].host == "other.test"
    assert not world.told[-1].allowed


@proves("egress.real-programs")
def test_pip_downloads_a_wheel_and_hears_why_it_gets_no_other(world, tmp_path):
    index = world.pages / "simple" / "thing"
    index.mkdir(parents=True)
    (index / "index.html").write_text('<a href="thing-1.0-py3-none-any.whl">thing-1.0</a>')
    with zipfile.ZipFile(index / "thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing.py", "x = 1\n")
        about = "thing-1.0.dist-info/"
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")  # fmt: skip
        wheel.writestr(about + "RECORD", "")
    pip = [sys.executable, "-m", "pip", "download", "--no-cache-dir", "--retries", "1", "-d", tmp_path / "got"]  # fmt: skip
    run = world.run(*pip, "--index-url", f"https://{HOST}/simple/", "thing")
    assert run.returncode == 0, run.stdout + run.stderr
    assert [each.name for each in (tmp_path / "got").iterdir()] == ["thing-1.0-py3-none-any.whl"]
    other = world.run(*pip, "--index-url", "https://other.test/simple/", "thing")
    assert other.returncode != 0
    assert "other.test:443 is not among what this sandbox may reach" in other.stdout + other.stderr


@proves("egress.real-programs")
def test_npm_installs_a_package(world, tmp_path):
    npm = program("npm")
    source = tmp_path / "thing"
    source.mkdir()
    (source / "package.json").write_text(json.dumps({"name": "thing", "version": "1.0.0"}))
    subprocess.run([npm, "pack", "--silent", "--pack-destination", world.pages], cwd=source, check=True, capture_output=True)  # fmt: skip
    about = {
        "name": "thing", "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": {"name": "thing", "version": "1.0.0", "dist": {"tarball": f"https://{HOST}/thing-1.0.0.tgz"}}},
    }  # fmt: skip
    (world.pages / "thing").write_text(json.dumps(about))
    into = tmp_path / "into"
    into.mkdir()
    ask = [npm, "install", "--no-audit", "--no-fund", "--fetch-retries=0", "thing"]
    run = world.run(*ask, f"--registry=https://{HOST}/", cwd=into)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (into / "node_modules" / "thing" / "package.json").exists()
    other = world.run(*ask, "--registry=https://other.test/", cwd=into)
    assert other.returncode != 0
    assert world.told[-1].host == "other.test"


@proves("egress.real-programs")
def test_curl_fetches_in_each_way_and_fronts_nobody(world):
    curl = [program("curl"), "--silent", "--show-error", "--max-time", "30"]
    (world.pages / "page").write_text("words")
    for asked in (f"https://{HOST}/page", f"http://{HOST}/page", f"https://{HOST.upper()}./page"):
        run = world.run(*curl, asked)
        assert run.stdout == "words", run.stderr
    # A tunnel for one name, and TLS in it for another.
    front = ["--connect-to", f"other.test:443:{HOST}:443", "https://other.test/page"]
    run = world.run(*curl, "--insecure", *front)
    assert run.returncode != 0
    assert "words" not in run.stdout
    assert "alert access denied" in run.stderr
    run = world.run(*curl, "--proxytunnel", f"http://{HOST}/page")
    assert "words" not in run.stdout
    run = world.run(*curl, "--insecure", "https://127.0.0.1/page")
    assert "words" not in run.stdout
    assert [each.allowed for each in world.told] == [True, True, True, False, False, False]
