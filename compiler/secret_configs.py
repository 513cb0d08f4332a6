"""Secrets in an image's config, so that a build on that image knows them again though their names do not tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.secret_marks import SecretMarks
from compiler.secret_names import is_secret_name

if TYPE_CHECKING:
    from cache.image_config import ImageConfig
    from cache.lmdb_store import LmdbStore
    from cache.store import Table
    from compiler.secret_values import SecretValues

_PREFIX = "secret:"
"""Of the keys in the table `places`; a mark of the field and its value follows."""


def rows_of(store: LmdbStore, config: ImageConfig, secrets: SecretValues) -> list[tuple[Table, str, bytes]]:
    """Records that say which values of a config are secrets, without saying what they are. Raises StoreProblem."""
    hidden = [(name, value) for name, value in _fields(config) if value.strip() and secrets.holds(name, value)]
    marks = SecretMarks(store.directory)
    return [("places", _key(marks, name, value), b"1") for name, value in hidden]


def known_secrets(store: LmdbStore, config: ImageConfig) -> tuple[tuple[str, str], ...]:
    """(name, value) of what a build on this store put into such a config and knew as a secret. Raises StoreProblem."""
    known = {key for key, _ in store.scan("places", _PREFIX)}
    if not known:
        return ()  # and no key is made
    marks = SecretMarks(store.directory)
    fields = [(name, value) for name, value in _fields(config) if value.strip()]
    return tuple((name, value) for name, value in fields if _key(marks, name, value) in known)


def _fields(config: ImageConfig) -> list[tuple[str, str]]:
    """What later steps take from a config. A variable with a secret name needs no record."""
    env = [entry.partition("=")[::2] for entry in config.env]
    rest = [("", config.working_dir), ("", config.user), *(("", word) for word in config.shell or ())]
    return [(name, value) for name, value in env if not is_secret_name(name)] + [("", name) for name, _ in env] + rest


def _key(marks: SecretMarks, name: str, value: str) -> str:
    return f"{_PREFIX}{marks.mark('config', f'{name}={value}'.encode('utf-8', 'surrogatepass'))}"
