"""Outputs: rows, the files they are written to, and the journal beside them."""
