"""Images into a node's containerd, without what it already has."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from tollgate_local import node
from tollgate_local.errors import BuildError
from tollgate_local.images.archive import Image, add_file, build_image, make_layer, write_archive
from tollgate_local.processes import Process

__all__ = ["load", "pause_image"]


def pause_image(pause: Path) -> Image:
    """The image of the container that holds a pod's namespaces."""
    layer = make_layer(lambda tar: add_file(tar, "pause", pause.read_bytes(), 0o755))
    return build_image("tollgate.local/pause", [layer], entrypoint=["/pause"])


def load(outer: Process, ctr: Path, image: Image | Path) -> bool:
    """Import an image, or any OCI archive, into one node; False when the node has that image already.

    Raises: BuildError with containerd's words.
    """
    if isinstance(image, Image):
        if image.tag in _lines(outer, ctr, "images", "ls", "-q"):
            return False
        present = _lines(outer, ctr, "content", "ls", "-q")
    command = node.enter(outer, [str(ctr), "-n", "k8s.io", "images", "import", "-"])
    source = subprocess.PIPE if isinstance(image, Image) else image.open("rb")
    with subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as importing:
        if isinstance(image, Image) and importing.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # ctr gave up; its own words say why
                write_archive(image, importing.stdin, omit=present)
        output, _ = importing.communicate()
    if importing.returncode:
        name = image.tag if isinstance(image, Image) else image
        raise BuildError(f"{name} could not be imported into {outer.name}: {output.decode(errors='replace').strip()}")
    return True


def _lines(outer: Process, ctr: Path, *command: str) -> set[str]:
    done = subprocess.run(
        node.enter(outer, [str(ctr), "-n", "k8s.io", *command]), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BuildError(f"containerd of {outer.name} does not answer: {done.stderr.strip()}")
    return set(done.stdout.split())
