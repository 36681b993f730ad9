"""What a manifest may say for a strategy: the base of these models, and the types they share."""

import re
import warnings
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from runtime._specs import IsNumber
from runtime.process._executable import Finder

_HIGHEST_PORT = 65_535


class Places:
    """Where the paths of a check start, and where its program is looked for.

    *search* is the PATH of the process that it is for, ours when it is None.
    """

    base: Path
    find: Finder
    search: str | None

    def __init__(self, base: Path, find: Finder | None = None, search: str | None = None) -> None:
        self.base, self.search = base, search
        self.find = find or Finder()


class Params(BaseModel):
    """The parameters of a strategy."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    def resolve(self, places: Places) -> Self:  # noqa: ARG002 - for those that have paths
        """Return these with absolute paths.

        Raises `ProblemsError` for what no field can say alone; its locations start here.
        """
        return self


def _port(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(f"must be a number from 1 to {_HIGHEST_PORT}") from None


def _expression(pattern: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what may mean something else one day
            re.compile(pattern)
    except RecursionError:
        raise ValueError("is no regular expression: it is nested too deeply") from None
    except (re.error, OverflowError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return pattern


Port = Annotated[int, Field(ge=1, le=_HIGHEST_PORT), IsNumber, WrapValidator(_port)]
Expression = Annotated[str, Field(min_length=1, max_length=1_000), AfterValidator(_expression)]
