"""The gate: thresholds on what was measured of a session, for continuous integration."""
