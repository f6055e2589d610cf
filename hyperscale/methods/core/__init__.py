"""The contract of a method (`base`) and the bases that methods share.

Of budgets: `row_budget`, `budgeted`. Of rules that prune full rows at intervals: `interval`, and by the score of each
entry `scored` and `observed`. Of rules that give up one entry a step: `slotted`, `victim`. Of rules that retrofits
learn: `dms_gate`, `dmc_merge`, `rotary`.
"""
