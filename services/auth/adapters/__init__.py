"""One remote each."""
