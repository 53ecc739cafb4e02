"""Caption metrics. This package does not depend on the models."""
