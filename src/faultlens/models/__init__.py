"""Classifiers, split into an encoder and a head."""
