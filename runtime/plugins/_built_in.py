"""A plugin for each built-in strategy, for who registers them as Process Pilot's are."""

from typing import ClassVar, final

from runtime.plugin import Plugin, ReadyStrategyType
from runtime.process import Process


@final
class BuiltInStrategy:
    """The built-in strategy *name* as a function of a plugin."""

    name: str

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, process: Process, interval_sec: float) -> bool:
        """Return whether *process* is ready within its ``ready_timeout_sec``.

        Its ``ready_params`` are those of this strategy, whichever it names itself; a look follows
        the one before after *interval_sec* seconds at most.
        """
        asked = Process(
            name=process.name,
            path=process.path,
            ready_strategy=self.name,
            ready_params=dict(process.ready_params),
            ready_timeout_sec=process.ready_timeout_sec,
        )
        strategy = asked.ready_strategy_function
        if strategy is None:
            raise AssertionError(self.name)  # these names are built in
        result = strategy(asked, interval_sec)
        return result if isinstance(result, bool) else await result


class BuiltInReadyPlugin(Plugin):
    """Provides one built-in strategy, which is there without it, too."""

    strategy: ClassVar[str]

    def get_ready_strategies(self) -> dict[str, ReadyStrategyType]:
        """Return the strategy by its name."""
        return {self.strategy: BuiltInStrategy(self.strategy)}
