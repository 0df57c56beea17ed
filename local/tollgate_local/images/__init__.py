"""Container images without a registry: made from local files, imported into the node's containerd.

`trainer_image()`, `operator_image()` and `python_image()` give an `Image`; `Cluster.import_image(image)` imports it;
`image.tag` is what a pod names. `build_image(name, layers, ...)` with `make_layer` and `add_tree` makes any other.
"""

from tollgate_local.images.archive import Image, Layer, add_file, add_tree, build_image, make_layer, write_archive
from tollgate_local.images.base import base_layer
from tollgate_local.images.project import code_layer, operator_image, python_image, trainer_image

__all__ = [
    "Image",
    "Layer",
    "add_file",
    "add_tree",
    "base_layer",
    "build_image",
    "code_layer",
    "make_layer",
    "operator_image",
    "python_image",
    "trainer_image",
    "write_archive",
]
