"""What the lab's servers share: a folder of their own, and starting and stopping in a block."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self


class Server(ABC):
    """
    A context manager around `start` and `stop`.

    Its files are in *folder*, or in a temporary folder that goes with it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(
                prefix="certbaton-lab-", ignore_cleanup_errors=True
            )
            folder = Path(self._temporary.name)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    @abstractmethod
    def start(self) -> Self:
        """Start and wait until it answers; on failure nothing is left running."""

    @abstractmethod
    def stop(self) -> None:
        """Stop; nothing if it does not run."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._end)
            started = self.start()
            stack.pop_all()
        return started

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        try:
            self.stop()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()
