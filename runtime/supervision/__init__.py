"""The supervision core: tables of states, units, restart policies, the supervisor, its events.

It knows none of the kinds of units that are built on it.
"""
