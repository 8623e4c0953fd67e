"""What the commands read, write and report."""
