"""What helps with an agent that is absent, or has no account where it is: ends of sentences.

Rule: what helps is told by who knows the agents (`Fleet.advice`); of others nothing is said.
"""

from collections.abc import Sequence

from muster.fleet.facts import LOGGED_OUT
from muster.task.route import Fleet, Verdict


def how_to_get(fleet: Fleet | None, agents: Sequence[str], machine: str = "") -> str:
    """What brings the first of these that is known, where this machine ("": any) has none."""
    if fleet is None:
        return ""
    asked = [each.facts for each in fleet.machines if machine in ("", each.name)]
    here = {agent for each in asked for agent in each.agents}
    known = [fleet.advice[each] for each in agents if each in fleet.advice]
    commands = [each.install for each in known if each.install]
    if not commands or not here.isdisjoint(agents):
        return ""
    return f"; install it there with `{commands[0]}`"


def logged_out(fleet: Fleet, verdicts: Sequence[tuple[Verdict, str]]) -> str:
    """Where nobody who fits is logged in: it would be tried all the same, most likely in vain."""
    fitting = [(verdict, machine) for verdict, machine in verdicts if verdict.fits]
    facts = {each.name: each.facts for each in fleet.machines}
    if any(facts[m].logins.get(v.agent) != LOGGED_OUT for v, m in fitting):
        return ""
    best, machine = max(fitting, key=lambda pair: (pair[0].score, pair[1]))
    known = fleet.advice.get(best.agent)
    hint = f": {known.login}" if known and known.login else ""
    return f"finds {best.agent} on {machine}, where it is not logged in{hint}"
