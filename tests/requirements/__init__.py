"""Every promise Muster makes, as a sentence. A test names the promise it proves with `@proves(id)`.

Each file beside this one is an area and holds its promises: `sync-total` in `log.toml` is the
promise `log.sync-total`. `test_requirements.py` checks both ways: a promise without a test
fails the build, and so does a test that names an unknown promise.
"""

import tomllib
from pathlib import Path
from typing import Final


def _read() -> dict[str, str]:
    return {
        f"{file.stem}.{name}": sentence
        for file in sorted(Path(__file__).parent.glob("*.toml"))
        for name, sentence in tomllib.loads(file.read_text(encoding="utf-8")).items()
    }


PROMISES: Final = _read()
