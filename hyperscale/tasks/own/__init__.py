"""Files of users' own tasks: `sources` finds them by the tasks' names, `schema` says what stands in one.

Of files in lm-eval's form `lm_eval_form` says what stands in one, and `lm_eval_task` makes its task.

Their problems are read by `hyperscale.tasks.own_problems`, and tried before a run by `hyperscale.tasks.own_check`.
docs/own-tasks.md is for users.
"""
