"""The `weir` command: it starts, watches and stops the mesh on one machine, and asks it."""
