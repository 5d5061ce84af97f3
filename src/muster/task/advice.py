"""What helps with an agent that is absent, or has no account where it is: ends of sentences.

Rule: what helps is told by who knows the agents (`Fleet.advice`); of others nothing is said.
"""

from collections.abc import Mapping, Sequence

from muster.task.route import Advice, Fleet, Verdict


def how_to_get(fleet: Fleet | None, agents: Sequence[str], machine: str = "") -> str:
    """What brings the first of these that is known, where this machine ("": any) has none."""
    if fleet is None:
        return ""
    asked = [each.facts for each in fleet.machines if machine in ("", each.name)]
    here = {agent for each in asked for agent in each.agents}
    known = [fleet.advice[each] for each in agents if each in fleet.advice]
    ways = [f"install it there with `{each.install}`" for each in known if each.install]
    ways += [f"it comes from {each.by_hand}" for each in known if each.by_hand]
    return f"; {ways[0]}" if ways and here.isdisjoint(agents) else ""


def logged_out(fleet: Fleet, verdicts: Sequence[tuple[Verdict, str]]) -> str:
    """Where a login is all that is missing: the task waits for it. "" where more is missing."""
    able = [(verdict.login, machine) for verdict, machine in verdicts if verdict.login]
    if not able:
        return ""
    agent, machine = min(able, key=lambda pair: pair[1])
    hint = how_to_log_in(fleet.advice, agent)
    return f"finds {agent} on {machine}, where it is not logged in{hint}"


def how_to_log_in(known: Mapping[str, Advice], agent: str) -> str:
    """What a person does where an agent has no account, as the end of a sentence."""
    advice = known.get(agent)
    return f": {advice.login}" if advice and advice.login else ""
