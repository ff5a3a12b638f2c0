"""Explain: what a classifier sees in one image, and what would change its mind."""
