"""Tasks: what the robot should do, written once as batched torch code against the simulator contract."""
