"""What a step of a training is made of: the launches of its losses and gradients, and the optimiser."""
