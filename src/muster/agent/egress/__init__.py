"""The one way out of a sandbox: a proxy outside of it, which knows what may be reached.

rules          names, ports and addresses that may be reached
request        what is asked of the proxy, read so that it says one thing
client_hello   which server a TLS client asks for
upstream       the proxy that this machine itself needs, where it does
decision       what was decided, as it is told
way            looks a name up, and connects to the very address that was checked
proxy          serves one attempt
"""

from muster.agent.egress.decision import Decision
from muster.agent.egress.proxy import Bounds, Proxy
from muster.agent.egress.rules import Rules
from muster.agent.egress.upstream import Upstreams

__all__ = ["Bounds", "Decision", "Proxy", "Rules", "Upstreams"]
