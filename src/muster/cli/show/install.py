"""What people read about programs that Muster is put into."""

from typing import Any

from muster.cli.text import Files, clean, state


def install(value: Any, _files: Files) -> str:
    lines = [f"{state(each['state'])}  {clean(each['file'])}" for each in value["files"]]
    title = clean(value["title"])
    if not value["done"]:
        return "\n".join(
            [*lines, f"Nothing was written: {title} is as it was; --yes asks nothing."]
        )
    after = f"; {clean(value['next'])}" if value.get("next") else ""
    return "\n".join([*lines, f"Done{after}."])


uninstall = install
