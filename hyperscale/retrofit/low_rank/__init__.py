"""Low-rank updates of the attention's projections (LoRA, arXiv 2106.09685), made by peft: training and merging."""
