"""Two sides compared, and the rules of one."""
