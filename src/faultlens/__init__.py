"""FaultLens."""
