# SPDX-License-Identifier: LGPL-2.1-or-later
"""A fixture image: layers that are shared, a configuration of the shape that real images have, and how to see that it
works. families.py and services.py hold them; test_matrix.py runs them. More images: more entries there."""

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from typing import Callable, Optional

from . import images
from .packages import Layer
from .process import LabError

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

OCI = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json",
       "application/vnd.oci.image.layer.v1.tar+gzip")
DOCKER = ("application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.container.image.v1+json",
          "application/vnd.docker.image.rootfs.diff.tar.gzip")


@dataclass(frozen=True)
class Line:
    """A docker command line that ends by itself: docker run OPTIONS IMAGE COMMAND, with this on stdin (-i)."""
    options: tuple = ()
    command: tuple = ()
    stdin: Optional[str] = None
    # What a program prints about itself that differs from run to run, as (pattern, replacement) for both outputs.
    ignore: tuple = ()


@dataclass
class Fixture:
    name: str
    family: str
    program: str
    layers: list            # bottom first: the name of a packages.LAYERS layer, or a dict as images.build() takes it
    config: dict
    lines: list = field(default_factory=list)
    # Long-running images: ask(container) says whether it answers, as text that must be the same for all variants.
    ask: Optional[Callable] = None
    options: tuple = ()     # of `docker run` and `tbnode run`, which the image needs: ("-e", "X=y")
    command: tuple = ()
    stop_timeout: int = 15  # seconds before the engine kills it: less for programs that know no stop signal
    # Lines of its log to be compared; None: the log is not compared (a service that prints what it measures).
    log: Optional[Callable] = None
    node: bool = True       # has a test as a node
    docker_builder: bool = False
    levels: tuple = ("basic", "core")
    formats: tuple = DOCKER
    node_command: Optional[tuple] = None   # another command as a node, for images that end at once

    @property
    def repository(self):
        return f"fixture/{self.name}"


class Store:
    """Pushes fixtures into a registry: each layer is uploaded once, all images mount it."""

    HOME = "fixture/layers"

    def __init__(self, registry, package_layers):
        self.registry = registry.ensure()
        self.layers = {name: Layer(path) for name, path in package_layers.items()}
        self._uploaded = {}

    def _upload(self, layer):
        """(digest, size, diff_id) of a layer that the registry has."""
        if isinstance(layer, str):
            kept = self.layers[layer]
            if layer not in self._uploaded:
                self.registry.put_blob(self.HOME, kept.read())
                self._uploaded[layer] = True
            return kept.digest, kept.size, kept.diff_id
        raw = layer if isinstance(layer, bytes) else images.layer(layer)
        diff_id = "sha256:" + hashlib.sha256(raw).hexdigest()
        if diff_id not in self._uploaded:
            packed = gzip.compress(raw, 1, mtime=0)
            self._uploaded[diff_id] = (self.registry.put_blob(self.HOME, packed), len(packed))
        return (*self._uploaded[diff_id], diff_id)

    def push(self, fixture, tag="1"):
        """Returns the reference; the image's blobs are mounted from one repository."""
        types = fixture.formats
        descriptors, diff_ids = [], []
        for layer in fixture.layers:
            digest, size, diff_id = self._upload(layer)
            status, _, body = self.registry.request(
                "POST", f"/v2/{fixture.repository}/blobs/uploads/?mount={digest}&from={self.HOME}")
            if status != 201:
                raise LabError(f"mount of {digest} for {fixture.name}: HTTP {status} {body[:300]!r}")
            descriptors.append({"mediaType": types[2], "digest": digest, "size": size})
            diff_ids.append(diff_id)
        config = json.dumps({
            "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z", "config": fixture.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": f"layer {i}"} for i in range(len(diff_ids))],
        }).encode()
        manifest = {"schemaVersion": 2, "mediaType": types[0],
                    "config": {"mediaType": types[1], "size": len(config),
                               "digest": self.registry.put_blob(fixture.repository, config)},
                    "layers": descriptors}
        self.registry.put_manifest(fixture.repository, tag, manifest)
        return f"{self.registry.host}/{fixture.repository}:{tag}"
