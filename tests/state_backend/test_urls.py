"""Which store a URL means, and what is said of one that means none."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from runtime.invocation import AppInfo
from runtime.state_backend import (
    NotOpenError,
    StateBackendError,
    StoreFileError,
    UnknownStateBackendError,
    make_state_backend,
)
from runtime.state_backend.memory import MemoryStateBackend

#: A distribution that brings a store along, as it is installed.
DISTRIBUTION = {
    "other_store.py": """
from runtime.state_backend.memory import MemoryStateBackend

class OtherStore(MemoryStateBackend):
    pass
""",
    "other_store-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: other\nVersion: 1\n",
    "other_store-1.0.dist-info/entry_points.txt": (
        "[trio_runtime.state_backends]\nother = other_store:OtherStore\n"
    ),
}


def test_a_url_means_a_store() -> None:
    shop = AppInfo("shop", "shop.app")
    store = make_state_backend("memory://", shop)
    assert type(store) is MemoryStateBackend
    assert (store.url, store.app) == ("memory://", shop)
    assert type(make_state_backend("sqlite:///a.db")).__name__ == "SQLiteStateBackend"


def test_a_distribution_adds_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in DISTRIBUTION.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    store = make_state_backend("other://somewhere")
    assert type(store).__name__ == "OtherStore"
    assert store.url == "other://somewhere"
    with pytest.raises(UnknownStateBackendError) as caught:
        make_state_backend("oter://somewhere")
    assert caught.value.known == ("memory", "other", "sqlite")
    assert "other" in str(caught.value)


@pytest.mark.parametrize("url", ["", "memory", "memory:", "sqlit:///a", "postgres://a", "://"])
def test_a_url_that_means_none(url: str) -> None:
    with pytest.raises(UnknownStateBackendError) as caught:
        make_state_backend(url)
    error = caught.value
    assert error.url == url
    assert {"memory", "sqlite"} <= set(error.known)
    assert repr(url) in str(error)
    assert "memory://" in str(error)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotOpenError("memory://"), "state backend memory://: it is used in an async with"),
        (NotOpenError("memory://", "it is late"), "state backend memory://: it is late"),
        (StoreFileError("/a.db", "it is damaged"), "state backend /a.db: it is damaged"),
        (UnknownStateBackendError("x://", ["memory"]), "there is no state backend for 'x://'"),
    ],
    ids=str,
)
def test_errors_have_their_fields_and_survive_pickling(error: Exception, words: str) -> None:
    assert isinstance(error, StateBackendError)
    for one in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        assert type(one) is type(error)
        assert vars(one) == vars(error)
        assert str(one).startswith(words)
