"""What all jobs use."""
