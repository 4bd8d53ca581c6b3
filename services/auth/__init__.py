"""Auth: keeps keys and says who holds them (weir.auth.v1)."""
