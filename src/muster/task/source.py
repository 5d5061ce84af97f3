"""Where in shell source a reference to a value may stand.

Rule 1: a reference is replaced by a reference to a variable, never by a value. So whatever this
        file gets wrong about a script, no value becomes source.
Rule 2: allowed are places where a shell expands a variable as one word: bare, where quotes are
        put around it, and in double quotes, where they are there already.
Rule 3: everywhere else it is refused with the way out: in single quotes it would be the letters
        themselves; arithmetic evaluates a variable's content (`a[$(rm x)]` runs); a second
        interpreter (`eval`, `sh -c`, `ssh`) would take the value as its source.

This is a scanner of quotes, not a parser of shell: it knows quotes, comments, `$( )`, `( )`,
backticks, `$(( ))`, `${ }` and `<<`.
"""

import re
from typing import Final, NamedTuple

_REFERENCE: Final = re.compile(r"\$\{([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\}")
_ESCAPED: Final = re.compile(r"\$\$\{[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\}")
# Takes text as source of its own. A word list can be evaded by an author, who writes the source
# anyway; it is there for mistakes, and rule 1 holds without it.
_INTERPRETER: Final = re.compile(
    r"(?<![\w./-])(eval|let|ssh|su|trap|declare|typeset|xargs"
    r"|(?:(?:ba|da|z|k|fi)?sh|python[0-9.]*|perl|ruby|node|php)(?=[^\n;|&]{0,200}?\s-[A-Za-z]{0,9}[ceEr]\b)"
    r"|\[\[(?=[^\n]{0,200}?\s-(?:eq|ne|lt|le|gt|ge|v)\s))(?![\w-])"
)
_WHY: Final = {
    "single": "stands in single quotes, where a shell does not replace it; use double quotes",
    "ansi": "stands in $'…', where a shell does not replace it; use double quotes",
    "arithmetic": "stands in arithmetic, where its content would be evaluated; "
    "check it with `case` first",
    "backtick": "stands in backticks, where quotes do not nest; use $(…)",
    "expansion": "stands inside ${…}; assign it to a variable first",
    "heredoc": "stands after <<; assign it to a variable before",
}
_CLOSING: Final = {"paren": ")", "double": '"', "expansion": "}", "backtick": "`", "bracket": "]"}


class Edit(NamedTuple):
    """A reference that may stay, and whether quotes are around it already."""

    start: int
    end: int
    source: str
    value: str
    quoted: bool

    def text(self, variable: str) -> str:
        return f"${{{variable}}}" if self.quoted else f'"${{{variable}}}"'


def placed(text: str) -> tuple[list[Edit], list[str]]:
    """The references that can be replaced, and a sentence for each that cannot."""
    scanner = _Scanner(text)
    scanner.run()
    edits, refused = scanner.edits, scanner.refused
    if edits or refused:
        word = _INTERPRETER.search(text)
        if word:
            refused.append(
                f"a value would reach {word[1].strip()}, which may take it as source; "
                "move the command into a script that reads the variable"
            )
    return edits, refused


class _Scanner:
    """One pass; `stack` holds what is open, the innermost last."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.stack = ["code"]
        self.heredoc = False
        self.edits: list[Edit] = []
        self.refused: list[str] = []

    def run(self) -> None:
        while self.at < len(self.text):
            if not self._reference():
                self._step()

    def _reference(self) -> bool:
        if escaped := _ESCAPED.match(self.text, self.at):
            self.at = escaped.end()
            self.refused.append(f"{escaped[0]} means nothing in a shell; leave it out")
            return True
        match = _REFERENCE.match(self.text, self.at)
        if match:
            self._take(match, self._context())
            self.at = match.end()
        return match is not None

    def _take(self, match: re.Match[str], context: str) -> None:
        if context in _WHY:
            self.refused.append(f"{match[0]} {_WHY[context]}")
            return
        quoted = context == "double"
        self.edits.append(Edit(match.start(), match.end(), match[1], match[2], quoted))

    def _context(self) -> str:
        if self.heredoc:
            return "heredoc"
        for name in ("arithmetic", "bracket", "backtick", "expansion"):
            if name in self.stack:
                return "arithmetic" if name == "bracket" else name
        return "double" if self.stack[-1] == "double" else "code"

    def _step(self) -> None:
        top, rest = self.stack[-1], self.text[self.at : self.at + 3]
        if rest[0] == "\\":
            self.at += 2
        elif rest.startswith("))") and top == "arithmetic":
            self._close(2)
        elif rest[0] == _CLOSING.get(top):
            self._close(1)
        elif not self._open(top, rest):
            self.at += 1

    def _close(self, width: int) -> None:
        self.stack.pop()
        self.at += width

    def _open(self, top: str, rest: str) -> bool:
        """Enters what starts here; says whether anything does."""
        for start, name in (
            ("$((", "arithmetic"),
            ("$(", "paren"),
            ("${", "expansion"),
            ("$[", "bracket"),
            ("`", "backtick"),
            ('"', "double"),
        ):
            if rest.startswith(start):
                self.stack.append(name)
                self.at += len(start)
                return True
        return top != "double" and self._open_in_code(rest)

    def _open_in_code(self, rest: str) -> bool:
        if rest.startswith("$'"):
            self.at += 1
            self._skip_quoted("ansi")
        elif rest[0] == "'":
            self._skip_quoted("single")
        elif rest.startswith("(("):
            self.stack.append("arithmetic")
            self.at += 2
        elif rest[0] == "(":
            self.stack.append("paren")
            self.at += 1
        elif rest.startswith("<<<"):
            self.at += 3
        elif rest.startswith("<<"):
            # A shift in arithmetic is no here-document.
            self.heredoc = self.heredoc or "arithmetic" not in self.stack
            self.at += 2
        elif rest[0] == "#" and (self.at == 0 or self.text[self.at - 1] in " \t\n;|&("):
            self._skip_comment()
        else:
            return False
        return True

    def _skip_quoted(self, context: str) -> None:
        """Moves behind the closing quote; in `$'…'` a backslash keeps a quote from closing."""
        pattern = r"(?:[^'\\]|\\.)*" if context == "ansi" else r"[^']*"
        body = re.compile(pattern, re.DOTALL).match(self.text, self.at + 1)
        end = body.end() if body else self.at + 1
        for match in _REFERENCE.finditer(self.text, self.at + 1, end):
            self._take(match, context)
        self.at = end + 1

    def _skip_comment(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end
