"""Clips as data: manifests, stores, datasets and the procedural world."""
