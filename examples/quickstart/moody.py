"""Works for three seconds and gives up: its supervisor brings it back."""

import sys
import time

print("today I work")
time.sleep(3)
print("no, I do not")
sys.exit(3)
