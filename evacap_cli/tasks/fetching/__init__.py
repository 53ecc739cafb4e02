"""Downloads published weight files and imports them."""
