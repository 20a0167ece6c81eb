"""Every image built from nothing by buildah: from a clean checkout, with no image and no layer of an earlier build."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from container_images import DIGEST
from places import REPOSITORY
from record import Count, Trial
from telecine import images

BASE = "docker.io/library/python:3.11-slim-bookworm"
STORAGE = '[storage]\ndriver = "overlay"\ngraphroot = "{0}/graph"\nrunroot = "{0}/run"\n'
"""A store of images of its own: what other builds left is neither used nor changed."""


def container_images(trial: Trial) -> Count:
    """Build the images; what is injected is a machine that has nothing of them."""
    sets, told, findings = images.SETS if trial.size == "full" else ("monitor",), [], []
    checkout = trial.folder / "checkout"
    _run("git", "clone", "--quiet", str(REPOSITORY), str(checkout), environment=os.environ)
    environment = _environment(checkout, trial.folder)
    expected = _run(sys.executable, "-c", DIGEST, environment=environment)
    for done, image_set in enumerate(sets):
        line = _run(sys.executable, str(checkout / "infra/images/images.py"), image_set, environment=environment)
        found = re.search(r"  ([\d.]+) MiB = .*\(built in (\d+) s\)$", line.strip())
        told.append(f"{image_set} {float(found[1]):.0f} MiB in {found[2]} s" if found else f"{image_set} failed")
        if not found or _digest_in(images.name(image_set, environment), environment) != expected:
            findings.append(f"the image {image_set} was not built, or does not hold the code of the checkout")
        trial.progress(done + 1, len(sets))
    version = _run("buildah", "--version", environment=environment).split()[2]
    what = f"images built by buildah {version} from a clean checkout, on a machine that had no layer of them: "
    return Count(
        what=what + ", ".join(told),
        injected=len(sets),
        lost=len(findings),
        recovered=len(sets) - len(findings),
        findings=tuple(findings),
    )


def _environment(checkout: Path, folder: Path) -> dict[str, str]:
    """Variables of a build: the checkout's own code, an empty store of images, a base that is pulled or made."""
    storage = folder / "storage.conf"
    storage.write_text(STORAGE.format(folder))
    roots = [str(checkout / root) for root in ("platform", "components", "models")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(roots),
        "CONTAINERS_STORAGE_CONF": str(storage),
        "TELECINE_CONTAINER_ENGINE": "buildah",
    }
    if _run("buildah", "pull", "--quiet", BASE, environment=environment):
        return environment | {"BASE_IMAGE": BASE}
    exports = _run(sys.executable, str(checkout / "infra/images/machine.py"), environment=environment)
    return environment | dict(re.findall(r"^export (\w+)=(.*)$", exports, re.MULTILINE))


def _digest_in(name: str, environment: Mapping[str, str]) -> str:
    """Digest of the code in an image; empty where it cannot run."""
    container = _run("buildah", "from", "--pull-never", name, environment=environment).strip()
    return _run("buildah", "run", container, "--", "python", "-c", DIGEST, environment=environment)


def _run(*command: str, environment: Mapping[str, str]) -> str:
    """What a command prints; nothing where it fails, and its own words are then on stderr."""
    done = subprocess.run(command, env=dict(environment), stdout=subprocess.PIPE, text=True)
    return done.stdout if done.returncode == 0 else ""
