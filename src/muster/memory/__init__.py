"""What machines, agents and people know, and what became of it (pure)."""
