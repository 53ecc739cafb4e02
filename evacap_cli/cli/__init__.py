"""The command line: one module per command, each a thin client of `tasks`. Importing it does not import torch."""
