"""``python -m hyperscale.cli``: the command line without its script."""

from hyperscale.cli.main import main

main()
