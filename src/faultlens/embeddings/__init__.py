"""Embeddings: one pass over the images, kept in a crash-safe store."""
