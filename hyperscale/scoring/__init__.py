"""From a chain's text to a verdict: graders, the sandbox for programs that models write, and voting.

Three packages, to be read in this order:

- `graders`: finds the answer in a chain's text and says whether it is right. One grader a file, `graders.base` is the
  contract.
- `sandbox`: runs the programs that the code graders find, apart from the user's files, network and processes.
- `voting`: turns the answers and verdicts of W chains into one verdict a problem (majority, pass@k, best of N).

Scoring loads no model and no engine, so stored chains can be graded and voted on again anywhere.
"""
