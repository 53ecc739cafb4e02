"""What is captioned: inputs, found in a stable order, and read as clips."""
