"""Install the real agents of the end-to-end tests from npm, by package name, into a cache folder.

    python tests/e2e/install_agents.py [FOLDER]

Rules: packages are asked for by name from whatever registry npm is configured with; nothing is
installed outside FOLDER (default: $MUSTER_NPM, else .cache/npm-agents in the repository); what
is there already is left alone, so a second run is instant. Prints one line per package set.

Node first: Claude's adapter needs Node 22, and with an older Node npm silently picks an old
Claude Code (it prefers versions whose `engines` fit). Where the system has an older Node, a
private Node 24 comes from npm too, and the other installs run under it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

NODE_MAJOR_MIN: Final = 22
NODE_PACKAGE: Final = "node@24"
SETS: Final[dict[str, tuple[str, ...]]] = {
    "claude": ("@agentclientprotocol/claude-agent-acp@latest", "@anthropic-ai/claude-code@latest"),
    "codex": ("@agentclientprotocol/codex-acp@latest", "@openai/codex@latest"),
    "gemini": ("@google/gemini-cli@latest",),
    "opencode": ("opencode-ai@latest",),
    "qwen": ("@qwen-code/qwen-code@latest",),
    "copilot": ("@github/copilot@latest",),
    # What others say of our MCP server; the suite for 2026-07-28 is an alpha, and pinned.
    "mcp": (
        "@modelcontextprotocol/inspector@2.12.0",
        "@modelcontextprotocol/conformance@0.2.0-alpha.12",
    ),
}
PROGRAMS: Final[dict[str, tuple[str, ...]]] = {
    "claude": ("claude-agent-acp", "claude"),
    "codex": ("codex-acp", "codex"),
    "gemini": ("gemini",),
    "opencode": ("opencode",),
    "qwen": ("qwen",),
    "copilot": ("copilot",),
    "mcp": ("mcp-inspector", "conformance"),
}


def folder() -> Path:
    """Where the agents live: $MUSTER_NPM, else .cache/npm-agents in the repository."""
    default = Path(__file__).resolve().parents[2] / ".cache" / "npm-agents"
    return Path(os.environ.get("MUSTER_NPM") or default)


def programs_path(root: Path) -> str:
    """The PATH under which the agents of `root` are found, private Node first."""
    return os.pathsep.join(str(root / name / "node_modules" / ".bin") for name in ("node", *SETS))


def missing(root: Path, name: str) -> list[str]:
    """The programs of one agent that are not installed under `root`."""
    bin_folder = root / name / "node_modules" / ".bin"
    return [program for program in PROGRAMS[name] if not (bin_folder / program).exists()]


def node_is_new_enough(path: str) -> bool:
    node = shutil.which("node", path=path)
    if node is None:
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.", said)
    return found is not None and int(found[1]) >= NODE_MAJOR_MIN


def npm_install(target: Path, packages: tuple[str, ...], path: str) -> None:
    """Raises CalledProcessError when npm fails; its own words are on the terminal then."""
    npm = shutil.which("npm", path=path)
    if npm is None:
        raise SystemExit("npm is not installed; install Node.js with npm, then run this again.")
    target.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(target), "--no-fund", "--no-audit"]
    subprocess.run(
        [*command, "--loglevel", "error", *packages],
        check=True,
        env={**os.environ, "PATH": path, "npm_config_update_notifier": "false"},
        cwd=target,
    )


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]).resolve() if arguments else folder()
    path = programs_path(root) + os.pathsep + os.environ.get("PATH", os.defpath)
    if not node_is_new_enough(path):
        npm_install(root / "node", (NODE_PACKAGE,), path)
        if not node_is_new_enough(path):
            raise SystemExit(f"Node {NODE_MAJOR_MIN} or newer is needed and npm brought none.")
    for name, packages in SETS.items():
        state = "there already"
        if missing(root, name):
            npm_install(root / name, packages, path)
            state = "installed"
        if absent := missing(root, name):
            raise SystemExit(f"{name}: npm ended well but {', '.join(absent)} did not appear.")
        print(f"{name}: {state} in {root / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
