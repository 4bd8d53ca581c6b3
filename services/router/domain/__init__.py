"""Pure decisions of the router: standard library and contract messages only."""
