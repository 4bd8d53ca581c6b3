"""What an attempt costs and which entries are sound. No I/O."""
