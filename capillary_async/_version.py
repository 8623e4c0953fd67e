"""The version: the build reads it here, and requests say it in their User-Agent."""

__version__ = "0.1.0"
