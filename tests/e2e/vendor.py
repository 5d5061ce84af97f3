"""What each real agent needs to work with the scripted model: its environment and its files.

One place for the tests of ACP and of the headless modes; nobody needs a credential.
"""

import json
from pathlib import Path
from typing import Any

KEY = "not-a-key-0123456789"
CODEX = """
model = "scripted"
model_provider = "scripted"
approval_policy = "on-request"
sandbox_mode = "workspace-write"
check_for_update_on_startup = false
[model_providers.scripted]
name = "scripted"
base_url = "{url}/v1"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
[analytics]
enabled = false
"""


def settled(name: str, url: str, home: Path) -> dict[str, str]:
    """The agent's variables; its files are written below `home`."""
    made: dict[str, str] = globals()[f"_{name}"](url, home)
    return made


def _claude(url: str, _home: Path) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": KEY,
        "CLAUDE_CODE_MAX_RETRIES": "0",
    }


def _codex(url: str, home: Path) -> dict[str, str]:
    _write(home / ".codex" / "config.toml", CODEX.format(url=url))
    return {"MODEL_PROVIDER": "scripted"}


def _gemini(url: str, home: Path) -> dict[str, str]:
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
    }
    _write(home / ".gemini" / "settings.json", json.dumps(settings))
    # A named model: else it asks one which model to take.
    model = {"GEMINI_MODEL": "gemini-2.5-flash"}
    return {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": url, **model}


def _opencode(url: str, home: Path) -> dict[str, str]:
    limit = {"context": 100_000, "output": 8_000}
    model: dict[str, Any] = {"name": "Scripted", "tool_call": True, "limit": limit}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Scripted",
        "options": {"baseURL": f"{url}/v1", "apiKey": KEY},
        "models": {"scripted": model, "second": model},
    }
    config = {
        "model": "scripted/scripted",
        "small_model": "scripted/scripted",
        "autoupdate": False,
        "share": "disabled",
        "provider": {"scripted": provider},
    }
    _write(home / "opencode.json", json.dumps(config))
    return {"OPENCODE_CONFIG": str(home / "opencode.json")}


def _qwen(url: str, home: Path) -> dict[str, str]:
    _write(
        home / ".qwen" / "settings.json",
        json.dumps({"security": {"auth": {"selectedType": "openai"}}}),
    )
    return {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_MODEL": "scripted"}


def _copilot(url: str, _home: Path) -> dict[str, str]:
    return {
        "COPILOT_OFFLINE": "true",
        "COPILOT_PROVIDER_BASE_URL": f"{url}/v1",
        "COPILOT_PROVIDER_API_KEY": KEY,
        "COPILOT_MODEL": "scripted",
    }


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
