"""Muster as people install it: the wheel by pipx and by uv, in a home of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.world import Said
from tests.ports import free_port
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
ROOT = Path(__file__).parent.parent.parent
LIMIT_S = 300
SPEC = """\
muster: 1
name: hello
phases:
  greet:
    agent: shell
    do: echo "hello from $(uname)"
    check: 'true'
"""


def run(*words: str | Path, env: dict[str, str] | None = None) -> Said:
    done = subprocess.run(
        [str(word) for word in words], env=env, cwd="/", stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return Said(done.stdout, done.stderr, done.returncode)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*build, "--wheel-dir", folder, ROOT)
    (found,) = folder.glob("*.whl")
    return found


def by_pipx(wheel: Path, env: dict[str, str]) -> None:
    pipx = shutil.which("pipx")
    if pipx is None:
        pytest.skip("pipx is not installed")
    # The newest pip may not know this interpreter's index: the one that is here is enough.
    run(pipx, "install", "--python", sys.executable, wheel, env=env)


def by_uv(wheel: Path, env: dict[str, str]) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    run(uv, "tool", "install", "--python", sys.executable, wheel, env=env)


@proves("install.wheel-works")
@pytest.mark.parametrize("install", [by_pipx, by_uv])
def test_a_wheel_that_is_installed_runs_a_fleet(tmp_path, wheel, install):
    """Init, a spec, the helper of git, down; all from a home whose path has spaces."""
    person = tmp_path / "a person"
    bin = person / "bin"
    bin.mkdir(parents=True)
    ours = str(Path(sys.executable).parent)
    others = [each for each in os.environ["PATH"].split(os.pathsep) if each != ours]
    kept = {k: v for k, v in os.environ.items()
            if not k.startswith(("MUSTER_", "XDG_", "VIRTUAL_ENV", "PYTHON"))}  # fmt: skip
    env = {
        **kept,
        "HOME": str(person),
        # A shebang cannot lead through a path with spaces, so pipx and uv keep theirs elsewhere.
        "PIPX_HOME": str(tmp_path / "pipx"),
        "PIPX_BIN_DIR": str(bin),
        "UV_TOOL_DIR": str(tmp_path / "uv"),
        "UV_TOOL_BIN_DIR": str(bin),
        "PATH": os.pathsep.join([str(bin), *others]),
        "MUSTER_STATE": str(person / "state of muster"),
    }
    install(wheel, env)
    muster = bin / "muster"
    assert (bin / "git-remote-muster").exists()
    # It is the installed one that answers, with every file that it reads.
    where = run(muster, "schema", env=env)
    assert where.out.startswith("{")
    home = ("--home", str(person / "my home"))
    listen = f"127.0.0.1:{free_port()}"
    words = ("init", "--name", "studio", "--listen", listen, "--up", "--no-sandbox")
    begun = run(muster, *words, *home, env=env)
    assert "muster join muster1." in begun.out
    try:
        spec, source = person / "hello.yaml", person / "my source"
        spec.write_text(SPEC)
        git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", source)
        run("git", "init", "-q", "-b", "main", source, env=env)
        (source / "README").write_text("hello\n")
        run(*git, "add", ".", env=env)
        run(*git, "commit", "-qm", "one", env=env)
        run(muster, "run", spec, *home, env=env)
        run(muster, "repo", "add", "main", source, *home, env=env)
        clone = person / "clone"
        fleet = {**env, "MUSTER_HOME": str(person / "my home")}
        run("git", "clone", "-q", "muster::studio/main", clone, env=fleet)
        assert (clone / "README").read_text() == "hello\n"
        assert run(muster, "doctor", *home, env=env).code == 0
    finally:
        run(muster, "down", *home, env=env)
