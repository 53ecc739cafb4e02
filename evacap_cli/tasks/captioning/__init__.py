"""Captions files: finds inputs, decodes them, runs the model, and writes tables and subtitles."""
