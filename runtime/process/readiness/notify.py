"""Ready when the process says so by READY=1 through its NOTIFY_SOCKET; see sd_notify(3)."""

import trio

from runtime.process.host import Host

from ._candidate import Candidate, Strategy
from ._params import Params


class NotifyParams(Params):
    """Nothing: where to send it is told to the process in its environment."""


async def wait_notify(_: NotifyParams, host: Host, candidate: Candidate) -> None:  # noqa: ARG001
    """Return once the process has sent READY=1; what else it tells meanwhile is the obstacle."""
    notices = candidate.notices
    if notices is None:
        candidate.obstacle = "it was started without a NOTIFY_SOCKET"
        await trio.sleep_forever()
    try:
        await notices.ready.wait()
    finally:
        said = notices.status_text
        candidate.obstacle = f"its last status is {said!r}" if said else "it has not sent READY=1"


NOTIFY = Strategy(params=NotifyParams, wait=wait_notify)
