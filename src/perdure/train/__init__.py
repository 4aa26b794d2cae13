"""The reference loop, the update it shares with other hosts, and checkpoints."""
