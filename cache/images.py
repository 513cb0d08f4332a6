"""Images: those of the store by name, and those that registries and layouts have, whose layers come when needed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cache import encoding
from cache.digest import Digest, OciDigest
from cache.errors import BuildgraphError, CorruptBlob, CorruptLayer, RemoteError, StoreProblem, UsageError
from cache.image_config import ImageConfig
from cache.oci import Descriptor, Index, Manifest, parse_manifest, select
from cache.result import Layer
from cache.store import Batch, NewFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.oci_layout import OciLayout
    from cache.platform import Platform
    from cache.reference import Reference
    from cache.registry import Registry
    from cache.store import Store, Table

MAX_CONFIG = 8 << 20
"""Bytes of an image config."""
MAX_LAYERS = 1000
"""Layers of one image; docker itself stops at 127."""


class Form(NamedTuple):
    """A layer's compressed form, and where it can be had: `HOST/REPOSITORY`, or `layout:DIRECTORY`."""

    media_type: str
    digest: str
    size: int
    origin: str


class StoredImage(NamedTuple):
    """An image as the store knows it.

    digest: of the manifest that it was pulled by, "" for one built here. pulled: it came from outside, so `--pull`
    asks there again. made_at: seconds since the epoch.
    """

    name: str
    platform: str
    config: ImageConfig
    layers: tuple[Layer, ...]
    digest: str
    pulled: bool
    made_at: float


class Images:
    """All methods may be called from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._registries: dict[str, Registry] = {}
        self.more_forms: Callable[[str], bytes | None] = lambda _: None
        """Where else a record of `forms` may be had."""

    # names

    def get(self, name: str, platform: Platform) -> StoredImage | None:
        """The image that the store has under this name for this platform; None if it has none or lost its config."""
        record = self._store.get("names", f"{name}|{platform}")
        return None if record is None else self._parse(name, str(platform), record)

    def all(self) -> list[StoredImage]:
        """Every image of the store, by name."""
        found = []
        for key, record in self._store.scan("names"):
            name, _, platform = key.rpartition("|")
            image = self._parse(name, platform, record)
            if image is not None:
                found.append(image)
        return found

    def _parse(self, name: str, platform: str, record: bytes) -> StoredImage | None:
        value = encoding.parse(record)
        digest = Digest.parse(value["config"])
        if not self._store.has_blob(digest):
            return None
        config = ImageConfig.parse(self._store.read_blob(digest))
        contents = value["contents"]
        layers = tuple(Layer(diff_id, content) for diff_id, content in zip(config.diff_ids, contents, strict=True))
        return StoredImage(name, platform, config, layers, value["digest"], value["pulled"], value["made_at"])

    def record(self, image: StoredImage) -> Batch:
        """What makes the store know the image by its name."""
        config = image.config.to_json()
        digest = Digest.of(config)
        value = {
            "config": str(digest),
            "contents": [layer.content for layer in image.layers],
            "digest": image.digest,
            "pulled": image.pulled,
            "made_at": round(image.made_at, 3),
        }
        key = f"{image.name}|{image.platform}"
        # A clean-up may have taken what made them out of the records while the image was built: they are named anew.
        # Those that only a cache server has are told of in `promised`.
        ours = [layer for layer in image.layers if layer.content != layer.diff_id and self._is_here(layer)]
        rows: list[tuple[Table, str, bytes]] = [("names", key, encoding.canonical(value))]
        rows += [("layers", layer.diff_id, encoding.canonical(layer.to_json())) for layer in ours]
        needs = tuple(blob for layer in ours for blob in (layer.tar, layer.listing) if blob is not None)
        return Batch(blobs={digest: config}, records=tuple(rows), needs=needs)

    def _is_here(self, layer: Layer) -> bool:
        return all(blob is not None and self._store.has_blob(blob) for blob in (layer.tar, layer.listing))

    def remove(self, name: str, platform: str) -> None:
        """Forget a name; its layers stay until nothing needs them."""
        self._store.commit(Batch(deleted=(("names", f"{name}|{platform}"),)))

    # from outside

    def pull(self, reference: Reference, platform: Platform) -> StoredImage:
        """Resolve an image at its registry: manifest and config come now, layers when they are needed.

        Raises RemoteError.
        """
        registry = self.registry(reference.host)
        repository = reference.repository
        data, media_type, digest = registry.get_manifest(repository, reference.locator)
        manifest = parse_manifest(data, media_type, str(reference))
        if isinstance(manifest, Index):
            chosen = select(manifest, platform, str(reference))
            data, media_type, digest = registry.get_manifest(repository, chosen.digest)
            manifest = parse_manifest(data, media_type, str(reference))
        if isinstance(manifest, Index):
            raise CorruptBlob(f"{reference} is an index of indexes")
        config = _bounded(registry.open_blob(repository, manifest.config.digest, manifest.config.size), manifest.config)
        return self._found(str(reference), platform, manifest, config, digest, f"{reference.host}/{repository}")

    def open_layout(self, directory: str, reference: str, platform: Platform) -> StoredImage:
        """An image of an OCI layout on disk. Raises LayoutProblem, CorruptBlob."""
        layout = _layout(directory)
        data, media_type, digest = layout.get_manifest(reference)
        manifest = parse_manifest(data, media_type, directory)
        if isinstance(manifest, Index):
            data, media_type, digest = layout.get_manifest(select(manifest, platform, directory).digest)
            manifest = parse_manifest(data, media_type, directory)
        if isinstance(manifest, Index):
            raise CorruptBlob(f"{directory} holds an index of indexes")
        config = _bounded(layout.open_blob(manifest.config.digest, manifest.config.size), manifest.config)
        name = f"oci-layout:{os.path.abspath(directory)}@{digest}"
        return self._found(name, platform, manifest, config, digest, f"layout:{os.path.abspath(directory)}")

    def _found(
        self, name: str, platform: Platform, manifest: Manifest, data: bytes, digest: OciDigest, origin: str
    ) -> StoredImage:
        config = ImageConfig.parse(data, f"the config of {name}")
        if len(config.diff_ids) != len(manifest.layers) or len(manifest.layers) > MAX_LAYERS:
            raise CorruptBlob(f"{name} has {len(manifest.layers)} layers and {len(config.diff_ids)} diff ids")
        layers = tuple(Layer(diff_id, diff_id) for diff_id in config.diff_ids)
        image = StoredImage(name, str(platform), config, layers, digest, True, time.time())
        forms = [
            self.form_record(diff_id, Form(layer.media_type, layer.digest, layer.size, origin))
            for diff_id, layer in zip(config.diff_ids, manifest.layers, strict=True)
        ]
        named = self.record(image)
        # The config as it came, byte for byte: its digest is the image's id.
        kept = Digest.of(data)
        value = {**encoding.parse(named.records[0][2]), "config": str(kept)}
        # A layout on disk is no name that anything could be built from later.
        names = [] if origin.startswith("layout:") else [("names", named.records[0][1], encoding.canonical(value))]
        records = (*names, *(form for form in forms if form))
        self._store.submit(Batch(blobs={kept: data}, records=records))
        return image

    # compressed forms

    def forms(self, diff_id: str) -> list[Form]:
        """The compressed forms of a layer that are known, oldest first."""
        record = self._store.get("forms", diff_id) or self.more_forms(diff_id)
        return [] if record is None else [Form(*form) for form in encoding.parse(record)]

    def form_record(self, diff_id: str, form: Form) -> Any:
        """The record that adds a form to those of a layer; None if it is there."""
        known = self.forms(diff_id)
        if known and known[-1] == form:
            return None
        known = [other for other in known if other != form]
        return "forms", diff_id, encoding.canonical([list(each) for each in (*known, form)])

    def open_form(self, form: Form) -> Iterator[bytes]:
        """The bytes of a form at its origin, in pieces; verified at the end, until then none may be trusted.

        Raises RemoteError, UsageError.
        """
        digest = OciDigest(form.digest)
        if form.origin.startswith("layout:"):
            return _layout(form.origin.removeprefix("layout:")).open_blob(digest, form.size)
        host, _, repository = form.origin.partition("/")
        return self.registry(host).open_blob(repository, digest, form.size)

    # layers

    def fetch(self, layer: Layer) -> Layer:
        """Bring a layer into the store, from the first origin that has it; verified, indexed, durable later.

        The newest origin goes first: it is the one that this build resolved. One that gives wrong bytes is forgotten,
        or it would stand in the way of the others for ever. Raises RemoteError, CorruptLayer, StoreProblem.
        """
        error: BuildgraphError | None = None
        for form in reversed(self.forms(layer.diff_id)):
            if not form.origin:
                continue
            try:
                return self._fetch(layer, form)
            except (CorruptBlob, CorruptLayer) as problem:
                left = [list(other) for other in self.forms(layer.diff_id) if other != form]
                self._store.submit(Batch(records=(("forms", layer.diff_id, encoding.canonical(left)),)))
                error = problem
            except (RemoteError, UsageError) as problem:
                error = error or problem
        if error is not None:
            raise error
        if self._store.get("promised", f"layer:{layer.diff_id}") is not None:
            text = f"only a cache server has the layer {layer.diff_id}"
            raise StoreProblem(text, hint="name it with --remote, or build again without it")
        raise StoreProblem(
            f"the layer {layer.diff_id} is gone from the store, and nothing is known about where it came from",
            hint="build again with --no-cache",
        )

    def fetched_size(self, layer: Layer) -> int:
        """Bytes that `fetch` would move: of the form that it tries first; 0 if none is known."""
        return next((form.size for form in reversed(self.forms(layer.diff_id)) if form.origin), 0)

    def promised(self, layer: Layer) -> Layer | None:
        """Nothing is known of a layer that was never fetched but where it is."""
        del layer
        return None

    def index(self, layer: Layer) -> None:
        """Registries keep no listings."""
        del layer

    def _fetch(self, layer: Layer, form: Form) -> Layer:
        from cache.decompress import decompress
        from cache.layer_reader import import_layer

        path = self._store.scratch("pull")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                made = import_layer(decompress(self.open_form(form)), fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise StoreProblem(f"cannot keep a layer: {error.strerror}") from None
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        if made.diff_id != layer.diff_id:
            os.unlink(path)
            raise CorruptBlob(f"the layer {form.digest} unpacks to {made.diff_id}, its image says {layer.diff_id}")
        encoded = made.index.encode()
        listing = Digest.of(encoded)
        known = layer._replace(tar=made.blob, listing=listing)
        record = encoding.canonical(known.to_json())
        self._store.submit(
            Batch(
                blobs={listing: encoded},
                files=(NewFile(made.blob, path),),
                records=(("layers", layer.diff_id, record),),
            )
        )
        return known

    def registry(self, host: str) -> Registry:
        """The connection to a registry, shared by everything in this process."""
        with self._lock:
            found = self._registries.get(host)
            if found is None:
                from cache import credentials
                from cache.registry import Registry

                found = self._registries[host] = Registry(host, credentials=credentials.find)
            return found


def _layout(directory: str) -> OciLayout:
    from cache.oci_layout import OciLayout

    return OciLayout.open(directory)


def _bounded(chunks: Iterator[bytes], descriptor: Descriptor) -> bytes:
    if descriptor.size > MAX_CONFIG:
        raise CorruptBlob(f"the image config {descriptor.digest} has {descriptor.size} bytes, more than {MAX_CONFIG}")
    return b"".join(chunks)
