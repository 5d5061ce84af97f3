"""What machines, agents and people tell each other, and how far it got (pure)."""
