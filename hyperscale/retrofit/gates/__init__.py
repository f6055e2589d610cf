"""A model with gates: `gated_model` attaches them, `inline_gates` decides inside attention.

The second is for neurons that are borrowed of attention, and for DMC, which merges there.
"""
