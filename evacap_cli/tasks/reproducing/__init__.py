"""`evacap reproduce`: the paper's tables and its figure from one command.

`plan` defines the systems, the scales and the steps; `steps` runs a step with the tasks of the other commands;
`comparison` compares the measured numbers with those of the paper; `writing` writes the files; `run` combines them.
"""
