"""The tasks behind the commands: importable functions over model, data, features, media and report."""
