"""Runs captioning, evaluation and preparation on a Ray cluster. Ray is imported only when a cluster is used."""
