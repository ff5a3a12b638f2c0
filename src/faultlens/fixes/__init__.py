"""Fixes for the faults of a session, each measured on images that it never saw."""
