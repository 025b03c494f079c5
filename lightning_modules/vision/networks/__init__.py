"""Networks from images to logits or features; what trains them is elsewhere."""
