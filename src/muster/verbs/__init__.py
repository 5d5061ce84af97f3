"""Every action a person, an agent or a machine can ask for, declared once."""
