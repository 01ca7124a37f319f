"""What the commands draw. Only these files know rich, and a command imports its own when it runs: help appears at once."""
