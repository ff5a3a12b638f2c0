"""Claims: what the analysis amounts to, in sentences a person can act on, with their numbers."""
