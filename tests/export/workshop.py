"""Images for the tests of exports: real layers in a real store."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cache import encoding
from cache.digest import OciDigest
from cache.image_config import History, ImageConfig
from cache.images import Images
from cache.lmdb_store import LmdbStore
from cache.platform import Platform
from cache.reference import Reference
from cache.result import Layer
from cache.store import Batch
from compiler.export.built import BuiltImage
from compiler.export.compress import Compressor
from compiler.export.export import export, export_index
from compiler.export.exported import Exported
from compiler.export.output import parse_output
from tests.cache.layers import Member, write
from worker.library import LayerLibrary

LINUX = Platform("linux", "amd64")


class Workshop:
    """A store with what a build would hand to an export."""

    def __init__(self, directory: Path) -> None:
        self.store = LmdbStore(str(directory))
        self.images = Images(self.store)
        self.library = LayerLibrary(self.store, self.images)
        self.reports: list[str] = []

    def layer(self, *members: Member) -> Layer:
        """A layer of ours."""
        made, batch = self.library.write_layer(lambda fd: write(fd, members))
        self.store.submit(batch)
        return made

    def base_layer(self, *members: Member) -> Layer:
        """A layer that counts as one of a base image; its tar is here, so that it can be exported as well."""
        layer = self.layer(*members)
        foreign = layer._replace(content=layer.diff_id)
        record = encoding.canonical(foreign.to_json())
        self.store.submit(Batch(records=(("layers", layer.diff_id, record),)))
        return foreign

    def image(self, layers: Sequence[Layer], *names: str, platform: Platform = LINUX) -> BuiltImage:
        config = ImageConfig.empty(platform)._replace(
            created="2024-01-01T00:00:00Z",
            labels=(("made", "here"),),
            diff_ids=tuple(OciDigest(layer.diff_id) for layer in layers),
            history=tuple(History("2024-01-01T00:00:00Z", "COPY . /") for _ in layers),
        )
        return BuiltImage(config, tuple(layers), platform, tuple(map(Reference.parse, names)))

    def export(
        self,
        text: str,
        *built: BuiltImage,
        epoch: int | None = None,
        stdout: int = -1,
        compressor: Compressor | None = None,
    ) -> Exported:
        """Of one image, or of several as an index."""
        options: dict[str, Any] = {
            "store": self.store,
            "library": self.library,
            "images": self.images,
            "report": self.reports.append,
            "epoch": epoch,
            "stdout": stdout,
            "compressor": compressor,
        }
        output = parse_output(text)
        return export(output, built[0], **options) if len(built) == 1 else export_index(output, built, **options)


@contextmanager
def workshop(directory: Path) -> Iterator[Workshop]:
    made = Workshop(directory)
    try:
        yield made
    finally:
        made.store.close()


def run(*command: str) -> str:
    """The output of a program that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
