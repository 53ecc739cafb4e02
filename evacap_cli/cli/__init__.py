"""The command line: one file a command, each a thin client of a function in `tasks`. Importing it imports no torch."""
