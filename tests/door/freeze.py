"""Write the frozen names and schemas of tools: `python -m tests.door.freeze`, for a new tool only.

What stands there is never taken away: the test beside this holds that.
"""

import json

from tests.door.test_tools import VECTOR, listed

if __name__ == "__main__":
    frozen = {
        name: {
            "required": tool["inputSchema"].get("required", []),
            "takes": {k: v["type"] for k, v in tool["inputSchema"]["properties"].items()},
            "gives": sorted(tool["outputSchema"]["properties"]),
        }
        for name, tool in listed().items()
    }
    VECTOR.write_text(json.dumps(frozen, indent=1) + "\n", encoding="utf-8")
