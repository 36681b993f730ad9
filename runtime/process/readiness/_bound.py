"""A strategy with its parameters: what a process is asked with."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from runtime._model_errors import explain
from runtime._problems import Problem, ProblemsError
from runtime.process.host import Host

from ._candidate import Candidate, Strategy
from ._params import Params, Places


@dataclass(frozen=True, slots=True)
class BoundCheck:
    """A check that is ready to be made, as often as one likes and of any candidate.

    *resolved* are the given parameters that have become others, with absolute paths.
    """

    name: str
    strategy: Strategy[Any]
    params: Params
    resolved: Mapping[str, Any]

    @property
    def can_probe(self) -> bool:
        """Whether `probe` can be called: its strategy looks at a state, and waits for no moment."""
        return self.strategy.probe is not None

    @property
    def listens(self) -> bool:
        """Whether it hears all that happens within the block of `attend`."""
        return self.strategy.attend is not None

    def attend(self, candidate: Candidate) -> AbstractContextManager[object]:
        """Return the block within which *candidate* runs.

        Entered before anything of its output is read, `wait` misses nothing in it.
        """
        attend = self.strategy.attend
        return nullcontext() if attend is None else attend(self.params, candidate)

    async def wait(self, host: Host, candidate: Candidate) -> None:
        """Return once it is true; the deadline belongs to the caller."""
        await self.strategy.wait(self.params, host, candidate)

    async def probe(self, host: Host, candidate: Candidate) -> bool:
        """Look once, and return whether it is true; the deadline belongs to the caller.

        When it is not, or when it is cancelled, *candidate* has the obstacle in words. Several may
        look at the same time. Raises `TypeError` where `can_probe` is False.
        """
        probe = self.strategy.probe
        if probe is None:
            raise TypeError(f"a {self.name} check waits for a moment, and cannot be asked again")
        return await probe(self.params, host, candidate)


def bind_strategy(
    name: str, strategy: Strategy[Any], params: Mapping[str, Any], places: Places
) -> BoundCheck:
    """Return *strategy* with *params*; raise `ProblemsError` with all that is wrong with these."""
    try:
        model: Params = strategy.params.model_validate(dict(params))
    except ValidationError as error:
        raise ProblemsError(_tell(error, name, strategy.params, params)) from error
    resolved = model.resolve(places)
    before, after = (each.model_dump(mode="json") for each in (model, resolved))
    changed = {key: after[key] for key in params if after[key] != before[key]}
    return BoundCheck(name, strategy, resolved, changed)


def _tell(
    error: ValidationError, name: str, model: type[Params], data: Mapping[str, Any]
) -> list[Problem]:
    problems: list[Problem] = []
    for each in error.errors(include_url=False):
        location, words = explain(each, model, data, told=problems)
        words = f"is missing; the {name} strategy needs it" if words == "is missing" else words
        problems.append(Problem(location, words))
    return problems
