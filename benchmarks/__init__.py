"""How fast the SDK is, measured side by side with what users would pick instead: `python -m benchmarks`."""
