"""PostgreSQL and the price list's file."""
