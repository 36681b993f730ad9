"""How an exception is kept: as JSON, from which its own class is made again where that can be."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ._exceptions import TaskFailedError

#: The longest traceback that is kept, in characters; its end says most.
MOST_TRACEBACK = 20_000


def _through_json(value: object) -> object:
    """Return *value* as JSON gives it back; raise `ValueError` where it is another one then."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    back: object = json.loads(text)
    if back != value:
        raise ValueError("it changes on its way through JSON")
    return back


def _arguments(error: BaseException) -> list[Any]:
    # An OSError keeps the names of files beside its args.
    return list(OSError.__reduce__(error)[1] if isinstance(error, OSError) else error.args)


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """What is kept of an exception: *type* and *module* of its class, and its sentence.

    *arguments* and *attributes* make it again; they are None where JSON cannot hold them.
    """

    type: str
    message: str
    traceback: str = ""
    module: str | None = None
    arguments: list[Any] | None = None
    attributes: dict[str, Any] | None = None

    @classmethod
    def of(cls, error: BaseException) -> ErrorRecord:
        """Return what is to be kept of *error*."""
        kind = type(error)
        text = "".join(traceback.format_exception(error))[-MOST_TRACEBACK:]
        try:
            message = str(error)
        except Exception as failure:  # noqa: BLE001 - somebody else's __str__
            message = f"(its text cannot be had: {type(failure).__name__})"
        arguments: Any
        attributes: Any
        try:
            arguments = _through_json(_arguments(error))
            attributes = _through_json({k: v for k, v in vars(error).items() if k != "__notes__"})
        except ValueError:
            arguments = attributes = None
        return cls(kind.__qualname__, message, text, kind.__module__, arguments, attributes)

    def to_exception(self) -> Exception:
        """Return an exception of the class that it was of, with its data.

        That is done only where the class is there already (nothing is imported) and gives the same
        sentence again; otherwise it is a `TaskFailedError`.
        """
        return self._remade() or TaskFailedError(self.type, self.message, self.traceback)

    def _remade(self) -> Exception | None:
        kind: Any = sys.modules.get(self.module or "")
        for part in self.type.split("."):
            kind = getattr(kind, part, None)
        if self.arguments is None or not (isinstance(kind, type) and issubclass(kind, Exception)):
            return None
        # Many a class hands a sentence to its base that it was not called with: then what the
        # arguments and the attributes are says all, and its __init__ must not be called again.
        return self._made_by(kind) or self._made_by(partial(kind.__new__, kind))

    def _made_by(self, make: Callable[..., Exception]) -> Exception | None:
        try:
            error = make(*self.arguments or ())
            vars(error).update(self.attributes or {})
            same = str(error) == self.message and _arguments(error) == self.arguments
        except Exception:  # noqa: BLE001 - somebody else's class
            return None
        return error if same else None

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_json(cls, text: str) -> ErrorRecord:
        """Return what `to_json` has told."""
        return cls(**json.loads(text))
