"""What else runs in each machine: messages, health, losses, a full disk, followers."""
