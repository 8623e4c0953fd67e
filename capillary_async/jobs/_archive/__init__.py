"""The archive of an export: the raw bodies of its answers, and answering from them again."""
