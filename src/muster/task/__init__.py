"""What is to be done: tasks, leases, routes, specs and runs; events in, instructions out (pure)."""
