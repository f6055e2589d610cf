"""How far a run is while it goes on: speed, time left and right answers so far (`arm_progress`), or a bar (`bar`)."""
