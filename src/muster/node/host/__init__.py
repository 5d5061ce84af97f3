"""What this machine is and where its files lie: home, configuration, facts, disk, clock."""
