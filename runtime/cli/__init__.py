"""The command line. What a command does is imported when it is the one that was called."""

from ._main import main as main
