"""Files of users' own tasks: `sources` finds them by the tasks' names, `schema` says what stands in one.

Their problems are read by `hyperscale.tasks.own_problems`, and tried before a run by `hyperscale.tasks.own_check`.
docs/own-tasks.md is for users.
"""
