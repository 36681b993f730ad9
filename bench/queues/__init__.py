"""Submitting and running tasks that do nothing, beside the peers and beside the bare file."""
