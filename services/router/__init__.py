"""The brain: authenticates, plans, runs the plan, guards the stream, and writes down every attempt."""
