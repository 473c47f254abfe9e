"""
Programs out of Debian's or Ubuntu's packages, unpacked into the cache and not installed.

No package script runs and no system service starts; it works without root. What the package
depends on and this machine lacks is unpacked beside it.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.build import Programs, Progress, cache_dir, locked
from lab.process import LabError, Process


def unpacked(package: str, programs: Sequence[str]) -> Programs:
    """*programs* of *package* in the cache, downloading it if it is not there yet."""
    home = cache_dir() / f"debian-{_release()}-{package}"
    if not home.is_dir():
        missing = f"{', '.join(programs)} not found"
        if not all(shutil.which(name) for name in ("apt-get", "dpkg-deb")):
            raise LabError(
                f"{missing}, and this is no Debian or Ubuntu; install {package} with this "
                "system's package manager."
            )
        with locked():
            if not home.is_dir():
                try:
                    _download(package, home)
                except LabError as error:
                    raise LabError(
                        f"{missing}, and {package} could not be downloaded ({error}); "
                        f"`apt-get install --no-install-recommends {package}` brings it."
                    ) from error
    return _found(home, package, programs)


def _release() -> str:
    try:
        facts = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    # Libraries of another release, or of another machine sharing the home, would not fit.
    return f"{facts.get('ID', '')}{facts.get('VERSION_ID', '')}-{platform.machine()}"


def _found(home: Path, package: str, programs: Sequence[str]) -> Programs:
    paths: dict[str, Path] = {}
    for name in programs:
        places = (home / part / name for part in ("usr/sbin", "usr/bin", "sbin", "bin"))
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise LabError(
                f"The package {package} unpacked in {home} lacks {name}; remove that folder, or "
                f"`apt-get install {package}`."
            )
        paths[name] = path
    libraries = {str(file.parent) for file in home.glob("**/*.so*") if file.is_file()}
    present = os.environ.get("LD_LIBRARY_PATH")
    path_list = sorted(libraries) + ([present] if present else [])
    return Programs(paths, {"LD_LIBRARY_PATH": os.pathsep.join(path_list)} if path_list else {})


def _download(package: str, home: Path) -> None:
    progress = Progress(20.0)
    try:
        _try_download(package, home, [], progress)
    except LabError:
        # The lists are missing, or so old that what they name is gone. Fresh ones go into the
        # cache: the machine's own belong to its administrator, and need root.
        options = _own_lists()
        _run(["apt-get", *options, "update"], f"reading the package lists for {package}", progress)
        _try_download(package, home, options, progress)


def _own_lists() -> list[str]:
    apt = cache_dir() / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    pairs = {
        "Dir::State::Lists": apt / "lists",
        "Dir::Cache": apt,
        # As root apt would become a user that may not read this folder.
        "APT::Sandbox::User": "root",
    }
    return [word for name, value in pairs.items() for word in ("-o", f"{name}={value}")]


def _try_download(package: str, home: Path, options: list[str], progress: Progress) -> None:
    what = f"downloading {package} (unpacked, not installed)"
    plan = _run(
        [
            "apt-get", *options, "-o", "Debug::NoLocking=1",
            "--simulate", "--no-install-recommends", "install", package,
        ],
        f"looking up {package}",
        progress,
    )  # fmt: skip
    wanted = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", plan, flags=re.MULTILINE)
    if not wanted:
        raise LabError(f"apt-get names nothing to download for {package}")
    with tempfile.TemporaryDirectory(prefix="stage-", dir=cache_dir()) as stage:
        packages, root = Path(stage) / "packages", Path(stage) / "root"
        packages.mkdir()
        root.mkdir()
        names = [f"{name}={version}" for name, version in wanted]
        _run(["apt-get", *options, "download", *names], what, progress, cwd=packages)
        files = [str(file) for file in sorted(packages.glob("*.deb"))]
        each = 'root=$1; shift; for file do dpkg-deb -x "$file" "$root" || exit; done'
        _run(["sh", "-c", each, "sh", str(root), *files], f"unpacking {package}", progress)
        root.replace(home)


def _run(command: Sequence[str], what: str, progress: Progress, *, cwd: Path | None = None) -> str:
    log = cache_dir() / "logs" / f"{command[0]}.log"
    log.unlink(missing_ok=True)
    process = Process(what, command, log=log, environ={"LC_ALL": "C"}, cwd=cwd)
    code = progress.step(what, 5.0, process, deadline=600.0)
    if code != 0:
        lines = process.log_tail(20).splitlines()
        reason = next((line for line in lines if line.startswith("E:")), f"exit code {code}")
        raise LabError(f"{what}: {reason}")
    return log.read_text(encoding="utf-8", errors="replace")
