"""The APIs that a gateway can stand before, by their names; another is a file and its row here."""

from typing import Final

from muster.agent.gateway.anthropic import ANTHROPIC
from muster.agent.gateway.api import Api
from muster.agent.gateway.google import GOOGLE
from muster.agent.gateway.openai import OPENAI

APIS: Final[dict[str, Api]] = {each.name: each for each in (ANTHROPIC, OPENAI, GOOGLE)}
