"""Caption metrics; knows nothing of models."""
