"""The edge: Envoy between clients and the routers. README.md tells each filter and why it stands where it does."""
