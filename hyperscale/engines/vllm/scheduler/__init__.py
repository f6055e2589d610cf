"""The scheduler's side: which request holds which blocks, and what chains cost."""
