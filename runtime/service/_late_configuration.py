"""A configuration that refers to secrets: looked up when its service is configured and started."""

from collections.abc import Mapping
from typing import Any, final

from runtime._problems import Location
from runtime._secrets import (
    Secrets,
    SecretSource,
    accept,
    hide_references,
    resolve_secrets,
    reveal,
)


@final
class LateConfiguration:
    """What a manifest says of the service *name*, *data* at the place *at*, with its references.

    What is looked up in *source* is hidden by *secrets* from then on.
    """

    secrets: Secrets

    def __init__(
        self,
        name: str,
        data: Mapping[str, Any],
        source: SecretSource,
        secrets: Secrets,
        *,
        at: Location,
    ) -> None:
        self._name, self._data, self._source, self._at = name, dict(data), source, at
        self.secrets = secrets

    def look_up(self) -> dict[str, Any]:
        """Return it with its secrets; `SecretError` where one cannot be had. It reads files."""
        found = resolve_secrets(self._data, self._source, self._at)
        return accept(self._name, found, self._source, self.secrets)

    async def reveal(self) -> dict[str, Any]:
        """Do the same, in a thread."""
        return await reveal(self._name, self._data, self._source, self.secrets, at=self._at)

    def get(self, key: str, default: object) -> object:
        """Return what it says of *key*, a secret as its reference."""
        return self._data.get(key, default)

    def show(self, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return how it may be shown, or how *configuration* may, which was made of it.

        What has a reference in it is shown as the manifest has it, with ``***`` for the reference;
        whatever else has the secret in it, without that.
        """
        written: Any = hide_references(self._data)
        if configuration is None:
            return {key: value for key, value in written.items() if key != "autostart"}
        masked: Any = self.secrets.mask_data(configuration)
        return {key: _overlay(self._data.get(key), written.get(key), masked[key]) for key in masked}


def _overlay(source: Any, written: Any, shown: Any) -> Any:  # noqa: ANN401 - whatever JSON has
    """Return *shown*, but *written* for each string of *source* that it was changed in."""
    if isinstance(source, str):
        return written if source != written else shown
    if isinstance(source, Mapping) and isinstance(shown, Mapping):
        return {key: _overlay(source.get(key), written.get(key), shown[key]) for key in shown}
    if isinstance(source, list) and isinstance(shown, list) and len(source) == len(shown):
        return [_overlay(*each) for each in zip(source, written, shown, strict=True)]
    return shown
