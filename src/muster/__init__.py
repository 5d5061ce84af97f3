"""Muster makes the machines a person owns act as one fleet of AI agents."""

__version__ = "0.3.0"
__all__ = ["__version__"]
