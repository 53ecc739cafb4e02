"""`python -m evacap_cli` is `evacap`."""

from evacap_cli.cli.app import main

main()
