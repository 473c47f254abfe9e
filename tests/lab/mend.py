"""A line of a pinned program's that would fail a test now and then: built with another one."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.process import LabError, Process


@dataclass(frozen=True)
class Mend:
    """In *file* of *module*, what is *old*, and stands there once, is *new*."""

    module: str
    file: str
    old: str
    new: str

    def modfile(self, go: Path, folder: Path, environ: Mapping[str, str], sources: Path) -> Path:
        """
        A go.mod for ``go build -modfile``: that of *sources*, with a mended copy in *folder*.

        LabError where the module cannot be had, or is not what this was made for.
        """
        process = Process(
            f"go mod download {self.module}",
            [go, "mod", "download", "-json", self.module],
            log=folder / "download.log",
            environ=dict(environ),
            cwd=sources,
        )
        with process:
            code = process.wait(600.0)
        told = process.log.read_text()
        if code != 0:
            raise LabError(f"{self.module} could not be downloaded ({process.log_tail(1).strip()})")
        copy, go_mod = folder / "module", folder / "go.mod"
        shutil.copytree(json.loads(told[told.index("{") :])["Dir"], copy)
        for path in (copy, *copy.rglob("*")):
            path.chmod(path.stat().st_mode | stat.S_IWUSR)  # Go keeps them read-only
        file = copy / self.file
        source = file.read_text()
        if source.count(self.old) != 1:
            raise LabError(f"{self.module}: {self.file} is not what lab.mend was made for")
        file.write_text(source.replace(self.old, self.new))
        pins = (sources / "go.mod").read_text()
        go_mod.write_text(f"{pins}\nreplace {self.module} => {copy}\n")
        shutil.copy(sources / "go.sum", folder)
        return go_mod


# One serial number in 256 has a first byte that DER does not want, and is then looked for under
# another name than it is kept under: 404 for its renewal information, 500 for what replaces it.
PEBBLE_SERIALS = Mend(
    "github.com/letsencrypt/pebble/v2",
    "ca/ca.go",
    "\treturn serial\n",
    "\treturn serial.SetBit(serial, 62, 1)\n",
)
