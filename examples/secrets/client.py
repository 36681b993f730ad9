"""Logs more than it should."""

import os

key = os.environ["API_KEY"]
print(f"the key has {len(key)} characters")
print(f"asking with the key {key}")
