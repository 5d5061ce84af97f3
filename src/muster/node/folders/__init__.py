"""Context folders on this machine's disk: who watches them, and the one who writes into them."""
