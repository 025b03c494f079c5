"""Bodies, cameras and rotations: pure functions that data and networks share."""
