"""JWTs of OIDC issuers: whose token it is, whether it is genuine, and what its holder may do."""
