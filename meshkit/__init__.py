"""How any service speaks on the mesh: codec, server, transports, errors, settings, telemetry."""
