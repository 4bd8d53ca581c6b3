"""One remote each: Triton, the cloud adapter, Auth's key set, the spool and the ledger."""
