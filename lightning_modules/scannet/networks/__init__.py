"""3-D backbones, and what turns their voxels into instances."""
