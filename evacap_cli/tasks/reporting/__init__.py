"""Results to report pages: `evacap report`, and `--report` of the commands that make results."""
