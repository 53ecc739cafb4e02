"""What the commands do: importable functions over model, data, features, media and report."""
