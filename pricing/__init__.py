"""What models cost, shared by the router, which shows it, and the ledger, which charges it."""
