"""What belongs to which process: forks, and the descriptors that a child must not use."""
