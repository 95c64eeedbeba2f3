"""The process layer: fork hooks, and guards of the descriptors that a child must not use."""
