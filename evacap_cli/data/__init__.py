"""Clips on disk: manifests and feature stores."""
