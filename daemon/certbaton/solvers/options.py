"""Reading a solver's settings: each key once, of the right kind, and none left over."""

from __future__ import annotations

from collections.abc import Mapping

from certbaton.errors import ConfigurationError


class Options:
    """
    The keys of *settings*, as in the configuration file; None is absent.

    *where* begins the key paths in the ConfigurationErrors. Call `finish`
    after the last key. Values are never shown: they may be somebody's secret
    at the wrong key.
    """

    def __init__(self, settings: Mapping[str, object], where: str) -> None:
        self._left = {key: value for key, value in settings.items() if value is not None}
        self._where = where

    def text(self, key: str, default: str | None = None) -> str | None:
        """The text at *key*, or *default*."""
        value = self._left.pop(key, default)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise self.error(key, "must be a text")
        return value.strip() if isinstance(value, str) else None

    def required(self, key: str) -> str:
        """The text at *key*."""
        value = self.text(key)
        if value is None:
            raise self.error(key, "this key is required")
        return value

    def number(self, key: str, default: float, *, least: float, most: float) -> float:
        """The number at *key*, from *least* to *most*, or *default*."""
        value = self._left.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, "must be a number")
        if not least <= value <= most:
            raise self.error(key, f"must be from {least:g} to {most:g}")
        return value

    def integer(self, key: str, default: int, *, least: int, most: int) -> int:
        """The whole number at *key*, from *least* to *most*, or *default*."""
        value = self.number(key, default, least=least, most=most)
        if value != int(value):
            raise self.error(key, "must be a whole number")
        return int(value)

    def section(self, key: str) -> Mapping[str, object]:
        """The keys below *key*; none if it is absent."""
        value = self._left.pop(key, {})
        if not isinstance(value, Mapping):
            raise self.error(key, "must hold keys and values")
        return value

    def finish(self) -> None:
        """ConfigurationError for the first key that nobody asked for."""
        self._left.pop("type", None)  # what chose this solver
        for key in sorted(self._left):
            raise self.error(key, "unknown key")

    def error(self, key: str, message: str) -> ConfigurationError:
        """A ConfigurationError at *key*."""
        return ConfigurationError(message, where=f"{self._where}.{key}")
