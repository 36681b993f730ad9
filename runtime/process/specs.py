"""What a manifest may say of a process in blocks of their own, and the types that fields share."""

import resource
import signal
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from runtime._procfs import MARKER_IS_OURS, MARKERS
from runtime._specs import FilePath, HealthSpec, IsNumber, Seconds, Text, without_nul

MOST_REPLICAS: Final = 1_000

Megabytes = Annotated[float, Field(gt=0, le=1_000_000_000, allow_inf_nan=False), IsNumber]
Percent = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False), IsNumber]
FileCount = Annotated[int, Field(ge=0, le=999_999_999), IsNumber]
Cpu = Annotated[int, IsNumber]
Nice = Annotated[int, Field(ge=-20, le=19), IsNumber]
Replicas = Annotated[int, Field(ge=1, le=MOST_REPLICAS), IsNumber]


def known_signal(name: str) -> str:
    """Return the full name of a signal, from ``term`` or ``SIGTERM``; else raise `ValueError`."""
    name = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    if name not in signal.Signals.__members__:
        raise ValueError(f"there is no signal {name!r} here; SIGTERM, SIGINT and SIGQUIT are usual")
    return name


SignalName = Annotated[str, AfterValidator(known_signal)]


def _number(digits: str, base: int = 10) -> int:
    """Return what *digits* stand for; of more than there can be, something that is too large."""
    return int(digits.lstrip("0")[:20] or "0", base)


def _exit_code(value: object) -> object:
    words = "must be an exit code from 0 to 255, or the name of a signal"
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal():
        value = _number(value.strip())
    if isinstance(value, str):
        return known_signal(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= HIGHEST_CODE:
        raise ValueError(words)  # pydantic tells ValueErrors
    return value


HIGHEST_CODE: Final = 255  #: that a process can exit with
ExitCode = Annotated[
    Annotated[int, Field(ge=0, le=HIGHEST_CODE)] | str,
    BeforeValidator(_exit_code, json_schema_input_type=int | str),
]


def _variable_name(name: str) -> str:
    if not name or "=" in name:
        raise ValueError("the name of a variable must not be empty nor contain '='")
    if name in MARKERS:
        raise ValueError(MARKER_IS_OURS)
    return name


CommandLine = Annotated[str, Field(min_length=1), AfterValidator(without_nul)]
VariableName = Annotated[Text, AfterValidator(_variable_name)]

HIGHEST_ID = 2**32 - 2  #: of a user or group; the one above it means none


def _account(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise ValueError("must be a name or a number")  # noqa: TRY004 - pydantic tells ValueErrors
    if isinstance(value, int) and not 0 <= value <= HIGHEST_ID:
        raise ValueError(f"there is no such number; it goes from 0 to {HIGHEST_ID}")
    return None if value == "" else value


#: A name or a number; "" is nobody, for that is what ``${NAME:-}`` says.
Account = Annotated[
    str | int | None, BeforeValidator(_account, json_schema_input_type=str | int | None)
]

_HIGHEST_UMASK = 0o777
_OCTAL = set("01234567")


def _umask(value: object) -> object:
    if isinstance(value, str):
        digits = value.strip().removeprefix("0o")
        if not digits or set(digits) - _OCTAL:
            raise ValueError('must be octal digits, such as "027"')
        value = _number(digits, 8)
    elif isinstance(value, bool) or not isinstance(value, int):
        raise ValueError('must be octal digits in quotes, such as "027"')  # noqa: TRY004
    elif value > 7 and not set(str(value)) - _OCTAL and set(f"{value:o}") - set("027"):
        # YAML 1.1 has read 027 as octal already, which is 23, and JSON has no octal numbers. What
        # is one of the usual masks by its value is taken to be that; 22, 27 and 77 are not.
        meant = [n for n in (int(str(value), 8), value) if n <= _HIGHEST_UMASK]
        if meant:
            remedies = " or ".join(f'"{n:03o}"' for n in meant)
            raise ValueError(f"{value} is ambiguous; write octal digits in quotes: {remedies}")
    if not 0 <= value <= _HIGHEST_UMASK:
        raise ValueError(f'is out of range, which is "000" to "{_HIGHEST_UMASK:o}"')
    return value


Umask = Annotated[
    int,
    BeforeValidator(_umask, json_schema_input_type=str | int),
    PlainSerializer(lambda value: f"{value:03o}", return_type=str),
]

#: The limits that there are here, as a manifest calls them. (OFILE is an old name of NOFILE.)
RLIMITS = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in sorted(vars(resource))
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}


Limit = Annotated[int, Field(ge=0)] | Literal["unlimited"]


def _rlimit(value: object) -> tuple[Limit, Limit]:
    pair = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2:
        raise ValueError("a pair has two limits, [soft, hard]")
    soft, hard = map(_one_rlimit, pair)
    if hard != "unlimited" and (soft == "unlimited" or soft > hard):
        raise ValueError(f"the soft limit {soft} is above the hard one, {hard}")
    return soft, hard


def _one_rlimit(value: object) -> Limit:
    if value == "unlimited":
        return "unlimited"
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError('must be a whole number, "unlimited", or a pair of these: [soft, hard]')
    return value


Rlimit = Annotated[
    tuple[Limit, Limit],
    BeforeValidator(_rlimit, json_schema_input_type=Limit | tuple[Limit, Limit]),
]


class ProcessHealthSpec(HealthSpec):
    """A check of the health of a process: by which strategy, how often, and what counts."""

    strategy: str | None = Field(
        default=None,
        description="What is checked, by a built-in strategy that looks at a state, or a plugin's;"
        " unset: what `ready_strategy` is.",
        examples=["tcp", "file"],
    )
    params: dict[str, Any] | None = Field(
        default=None,
        description="What the strategy needs; unset: `ready_params`, if that is of the same one.",
        examples=[{"port": 8080}, {"path": "run/alive"}],
    )


class LogSpec(BaseModel):
    """A file that gets what a process prints, and the older files beside it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    file: FilePath = Field(
        description="The file, relative to the base directory; its folders are made at the start.",
        examples=["logs/api.log"],
    )
    max_mb: Megabytes = Field(
        default=50.0,
        description="Size in MiB at which it becomes FILE.1, FILE.1 becomes FILE.2, and so on.",
    )
    keep: FileCount = Field(
        default=5,
        description="How many older files are kept beside it; 0: it just starts anew.",
    )
    timestamps: bool = Field(
        default=False, description="Whether each line begins with its time, in UTC (ISO 8601)."
    )


class CeilingsSpec(BaseModel):
    """How much a process may use; using more is a failure of it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    memory_mb: Megabytes | None = Field(
        default=None, description="Resident memory in MiB; unset: no ceiling.", examples=[500]
    )
    cpu_percent: Percent | None = Field(
        default=None,
        description="Cpu in percent of one core, 200 for two of them; unset: no ceiling.",
        examples=[180],
    )
    for_sec: Seconds = Field(
        default=10.0,
        description="Seconds for which a ceiling may be exceeded; 0: the first look decides.",
    )
    of: Literal["process", "family"] = Field(
        default="family",
        description="Whose use is meant: of the process alone, or with all that descends from it.",
    )

    @model_validator(mode="after")
    def _check_ceilings(self) -> Self:
        if self.memory_mb is None and self.cpu_percent is None:
            raise ValueError("names no ceiling; give memory_mb, cpu_percent, or both")
        return self
