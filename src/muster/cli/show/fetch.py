"""What people read about what a task delivered."""

from typing import Any

from muster.cli.text import Files, clean


def fetch(value: Any, _files: Files) -> str:
    if "commit" in value:
        branch, commit = clean(value["branch"]), clean(value["commit"])
        return (
            f"its files are in the repository {clean(value['repo'])}, on the branch {branch}:\n"
            f"  git fetch && git checkout {branch}    # {commit}"
        )
    return "\n".join(
        f"{clean(each['path'])}{'/' if each['shape'] == 'folder' else ''}  {each['size']} bytes"
        for each in value["placed"]
    )
