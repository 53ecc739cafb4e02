"""Inputs: finds them in a stable order and reads them as clips."""
