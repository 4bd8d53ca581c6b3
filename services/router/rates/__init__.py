"""Limits of requests, tokens and concurrency: which apply, what is left of them, and who is let in."""
