"""The help page: what a person does every day, or every verb there is."""

from typing import Final

from muster.cli.text import cut
from muster.node.verb import Verb
from muster.verbs import EVERY_DAY, GROUPS
from muster.verbs.table import VERBS

HELP_COLUMNS: Final = 80


def overview(common: tuple[tuple[str, str], ...], *, whole: bool = False) -> str:
    """The help page: what a person does every day, on one screen; or every verb, in groups."""
    shown: dict[str, list[Verb]] = {
        title: [VERBS[name] for name in names] for title, names in EVERY_DAY.items()
    }
    if whole:
        shown = {title: [v for v in VERBS.values() if v.group == title] for title in GROUPS}
    width = max(len(v.name) for verbs in shown.values() for v in verbs) + 2
    lines = ["usage: muster VERB …    The machines you own, as one fleet of AI agents.", ""]
    for title, verbs in shown.items():
        lines += [f"{title}:", *(_summary(v, width, whole) for v in verbs), *[""] * whole]
    if whole:
        lines.append("For every verb:")
        lines += [f"  {flag:<{width + 4}}{text}" for flag, text in common]
    more = "" if whole else "; `muster help --all` lists every verb"
    lines += [f"`muster help VERB` has examples{more}.", ""]
    return "\n".join(lines)


def _summary(verb: Verb, width: int, whole: bool) -> str:
    line = f"  {verb.name:<{width}}{verb.summary}"
    return line if whole else cut(line, HELP_COLUMNS)
