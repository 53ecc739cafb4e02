"""`evacap reproduce`: the paper's tables and its figure from one command.

`plan` names the systems, the scales and the steps; `steps` carries out a step with the tasks of the other commands;
`comparison` sets what was measured beside the paper's numbers; `writing` makes the files; `run` puts them together.
"""
