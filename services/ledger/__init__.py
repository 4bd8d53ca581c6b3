"""Accounts for every attempt, once."""
