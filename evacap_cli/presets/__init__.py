"""Presets: named settings as YAML."""
