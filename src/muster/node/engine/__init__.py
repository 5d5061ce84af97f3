"""The NATS server of a machine that serves: its program, its process, and who is let in."""
