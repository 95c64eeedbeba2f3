"""Reports of the pools of this process."""
