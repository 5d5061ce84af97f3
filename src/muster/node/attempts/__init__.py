"""One attempt at a task: its folder, values, files, agent, and what becomes of its result."""
