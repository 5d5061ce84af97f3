"""Options and fixtures every test may use."""
