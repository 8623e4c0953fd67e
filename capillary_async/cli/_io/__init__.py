"""Input, output and messages of the commands."""
