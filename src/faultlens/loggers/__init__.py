"""Loggers: a session, and what a gate said of it, in the tracker that a team already has."""
