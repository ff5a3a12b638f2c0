"""Attacks: inputs made on purpose so that a classifier errs; one attack a file."""
