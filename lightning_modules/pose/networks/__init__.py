"""Networks from 2-D keypoints (B, T, J, 2 or 3) to 3-D poses (B, T, J, 3)."""
