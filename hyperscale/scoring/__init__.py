"""From a chain's text to a verdict: graders, the sandbox for programs that models write, and voting.

Three packages, to be read in this order:

- `graders`: finds the answer in a chain's text and says whether it is right. One grader a file, `graders.base` is the
  contract.
- `sandbox`: runs the programs that the code graders find, apart from the user's files, network and processes.
- `voting`: turns the answers and verdicts of W chains into one verdict a problem (majority, pass@k, best of N).

Scoring needs no engine and not the model that generated the chains, so stored chains can be graded and voted on again
anywhere. A single strategy loads a model: best of N with a reward model (`voting.reward_models`).
"""
