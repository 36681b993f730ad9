"""The runtime against the physical limit: what the same takes without any supervision at all."""
