"""What the runtime costs, each figure beside the limit it is held against, in one run."""
