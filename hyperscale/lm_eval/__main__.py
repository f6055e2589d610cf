"""``python -m hyperscale.lm_eval``."""

from hyperscale.lm_eval.command import main

main()
