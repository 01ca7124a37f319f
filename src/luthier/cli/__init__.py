"""The terminal: commands and what they draw."""
