"""What people read about threads."""

from typing import Any

from muster.cli.show.inbox import said
from muster.cli.text import Files, pairs


def threads(value: Any, files: Files) -> str:
    return "\n\n".join(thread(each, files) for each in value) or "This machine is in no thread."


def thread(value: Any, _files: Files) -> str:
    who = ", ".join(value["members"])
    head = pairs([("thread", value["thread"]), ("keeper", value["keeper"]), ("members", who)])
    text = "\n\n".join(said(each) for each in value["messages"])
    return f"{head}\n\n{text}" if text else head
