"""From a chain's text to a verdict: graders, the runner of model-written programs, voting."""
