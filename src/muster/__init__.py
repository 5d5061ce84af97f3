"""Muster makes the machines a person owns act as one fleet of AI agents."""

from typing import Final

__version__: Final = "0.1.0"
__all__ = ["__version__"]
