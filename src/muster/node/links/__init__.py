"""Ways to other machines: dialling, the choice among links, relays."""
