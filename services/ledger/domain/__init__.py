"""Which entries are sound. No I/O."""
