"""Every group of rows, in the order of the table."""

from typing import Final

from bench.rows.base import Group
from bench.rows.chain import CHAIN
from bench.rows.crash import CRASH
from bench.rows.fleet import FLEET
from bench.rows.orphans import ORPHANS

GROUPS: Final[tuple[Group, ...]] = (CRASH, CHAIN, FLEET, ORPHANS)
