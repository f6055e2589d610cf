"""lm-eval's own command, which knows this project's model."""

import sys

from hyperscale.errors import HyperscaleError


def main() -> None:
    """lm-eval's command with this model registered; a user error is one line and exit code 2."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except HyperscaleError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
