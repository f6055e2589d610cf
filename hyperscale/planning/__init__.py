"""From a budget to the points of a run: what each would cost, and which of them fit."""
