"""The Dockerfile, as far as it can be looked at where no container engine runs."""

from __future__ import annotations

import re
import subprocess
import sys

from chart.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
# Parent packages first, so that a blocked one is not imported by accident.
IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    sys.modules[name] = None
import certbaton
for module in pkgutil.walk_packages(certbaton.__path__, "certbaton."):
    importlib.import_module(module.name)
"""


def test_the_daemon_imports_without_what_the_image_lacks() -> None:
    """Every module of it, with the removed packages blocked."""
    (removed,) = re.findall(r"opt/certbaton/bin/python uninstall --yes\s+([^&]+)&&", DOCKERFILE)
    names = [name.replace("-", "_") for name in removed.split()]
    (folder,) = re.findall(r"rm -r \S+/site-packages/(\S+)", DOCKERFILE)
    names.append(folder.replace("/", "."))
    assert {"aiohttp", "kubernetes.aio"} < set(names)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_download_is_pinned_by_hash() -> None:
    """What is installed without an index was built from the checkout."""
    installs = re.findall(r"pip(?: --python \S+)? install ([^&\n]+)", DOCKERFILE)
    assert installs
    for arguments in installs:
        assert "--require-hashes" in arguments or "--no-index" in arguments, arguments
    assert not re.search(r"\b(curl|wget|apt-get|ADD)\b", DOCKERFILE)


def test_the_image_runs_as_the_user_of_the_chart() -> None:
    """By number, as the kubelet cannot tell from a name that it is not root."""
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)$", last, re.MULTILINE) == ["65532:65532"]
    assert 'ENTRYPOINT ["certbaton"]' in last
    values = (ROOT / "helm" / "certbaton" / "values.yaml").read_text()
    assert "runAsUser: 65532" in values


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    """No key, no cache and no environment of this machine gets into a layer."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        name
        for arguments in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for name in arguments.split()
    }
    assert "*" in lines
    assert copied == allowed
