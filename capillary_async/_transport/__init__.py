"""What goes over the wire, one concern a file; ``chain.py`` puts them in order."""
