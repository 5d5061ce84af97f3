"""How Muster comes into agent programs: their hooks and plugins, a file for each program."""
