"""Tasks and runs: what their owner decides, and what the worker says of them."""
