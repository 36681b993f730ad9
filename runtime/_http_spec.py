"""What a manifest may say of the HTTP face: where it listens, for which hosts, with which token."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

from runtime._listening import parse_bind
from runtime._specs import FilePath

#: A name without its port, as it is compared with what a request gives.
HostName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=253, to_lower=True)
]


class HttpSpec(BaseModel):
    """Where HTTP is served, for which hosts, and with which token."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    bind: str | None = Field(
        default=None,
        description="Where it listens, HOST:PORT or unix:PATH; unset: 127.0.0.1:8410, or the next"
        " port that is free.",
        examples=["127.0.0.1:8410", "unix:run/http.sock"],
    )
    hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Further names that requests may give as their host, such as that of a proxy;"
        " localhost and addresses always may. Unset: none.",
        examples=[["shop.example"]],
    )
    token_file: FilePath | None = Field(
        default=None,
        description="File of the token, at least 16 characters; unset: each tree makes a new one.",
        examples=["/run/secrets/token"],
    )

    @field_validator("bind")
    @classmethod
    def _check_bind(cls, value: str | None) -> str | None:
        if value is not None:
            parse_bind(value, Path("/"))
        return value


def _from_short_form(value: object) -> object:
    if value is None or value is False or value == "off":  # YAML reads a bare off as false
        return None
    if value is True or value == "on":
        return HttpSpec()
    if isinstance(value, str):
        return {"bind": value}
    if isinstance(value, int | float | list):
        raise ValueError(  # noqa: TRY004 - a wrong value like any other
            "must be an address such as 127.0.0.1:8410 or unix:run/http.sock,"
            " or {bind: ADDRESS, hosts: [NAME], token_file: PATH}, or off"
        )
    return value


#: ``{bind: …}``, just the address, or ``off``.
HttpEntry = Annotated[
    HttpSpec | None,
    BeforeValidator(_from_short_form, json_schema_input_type=HttpSpec | str | bool | None),
]
