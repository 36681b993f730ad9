"""Whose listener it is that answers on a port of this host."""

import trio

from runtime import _procfs
from runtime._procfs import Stat
from runtime.process.family import Family
from runtime.process.host import Host


class PortOwner:
    """Tells whether what listens on *port* is a stranger to a process's *family*.

    A stranger has the port when it has started before the process, so that it cannot have been
    started for it, and when nothing of the family has it open. Where that cannot be told (another
    network namespace, a process of another user that may not be looked at), there is none.
    """

    def __init__(self, port: int, family: Family, host: Host) -> None:
        self._port, self._family, self._host = port, family, host
        self._stranger: Stat | None = None

    async def find_stranger(self) -> Stat | None:
        """Return the stranger who has the port, None if there is none."""
        sockets = _procfs.list_listeners(self._port)
        if not sockets or self._is_of_family(sockets):
            return None
        if self._stranger is None or not _has_any(self._stranger.pid, sockets):
            self._stranger = await trio.to_thread.run_sync(
                self._search, sockets, limiter=self._host.checks
            )
        return self._stranger

    def _is_of_family(self, sockets: set[int]) -> bool:
        if _has_any(self._family.leader, sockets):
            return True
        return any(_has_any(stat.pid, sockets) for stat in self._family.look())

    def _search(self, sockets: set[int]) -> Stat | None:
        """Look at every process of the host for who has the *sockets*; the oldest has them."""
        leader = _procfs.read_stat(self._family.leader)
        holders: dict[int, Stat] = {}
        for pid in _procfs.list_pids():
            held = _procfs.list_sockets(pid) & sockets
            if held and (stat := _procfs.read_stat(pid)) is not None:
                holders |= {each: min(holders.get(each, stat), stat, key=_age) for each in held}
        if leader is None or holders.keys() != sockets:
            return None
        first = min(holders.values(), key=_age)
        youngest = max(holders.values(), key=_age)
        return first if youngest.start_ticks < leader.start_ticks else None


def _age(stat: Stat) -> int:
    return stat.start_ticks


def _has_any(pid: int, sockets: set[int]) -> bool:
    return not sockets.isdisjoint(_procfs.list_sockets(pid))
