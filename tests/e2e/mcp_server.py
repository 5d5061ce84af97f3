"""An MCP server out of the standard library with one tool, `look_up`, over standard input.

It answers with what its environment has under WORD, so that a test sees who was given what.
"""

import json
import os
import sys

TOOL = {
    "name": "look_up",
    "description": "Look a word up.",
    "inputSchema": {"type": "object", "properties": {"word": {"type": "string"}}},
}


def answer(method: str, asked: dict[str, object]) -> dict[str, object] | None:
    if method == "initialize":
        return {
            "protocolVersion": asked.get("protocolVersion", "2025-06-18"),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "words", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        said = {"type": "text", "text": f"it means {os.environ.get('WORD', 'nothing')[::-1]}"}
        return {"content": [said], "isError": False}
    return {} if method == "ping" else None


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(message["method"], message.get("params") or {})
        said = (
            {"result": result}
            if result is not None
            else {"error": {"code": -32601, "message": "no"}}
        )
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **said}), flush=True)


if __name__ == "__main__":
    main()
