"""The depthwise convolution along several paths, as one operator."""
