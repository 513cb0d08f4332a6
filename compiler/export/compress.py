"""Compressor: layers in the compressed forms that leave, made at most once and only when their bytes are needed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cache import oci
from cache.digest import OciDigest
from cache.errors import EnvironmentProblem, RemoteError, StoreProblem, UsageError
from cache.images import Form
from cache.layer_writer import write_all
from cache.oci import Descriptor
from cache.store import Batch
from compiler.export.compression import BLOCK, media_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cache.images import Images
    from cache.result import Layer
    from compiler.export.compression import Compression
    from worker.library import LayerLibrary


class Known(NamedTuple):
    """A form of a layer whose bytes need not be here. origins: where it can be had, as in cache.images.Form."""

    descriptor: Descriptor
    origins: tuple[str, ...]


class Blob(NamedTuple):
    """A form of a layer whose bytes are here. open_chunks may be called any number of times, also in parallel."""

    descriptor: Descriptor
    open_chunks: Callable[[], Iterator[bytes]]


class Compressor:
    """All methods may be called from several threads. What it makes lies in the store's scratch space until the end.

    Layers of the base image keep the form in which they came, unless the compression is forced: their digests stay,
    and registries that have them need nothing. Layers of ours are packed as asked for, so that what was exported
    before never changes an image's digest.
    """

    def __init__(self, library: LayerLibrary, images: Images) -> None:
        self._library = library
        self._images = images
        self._lock = threading.Lock()
        self._locks: dict[tuple[str, Compression], threading.Lock] = {}
        self._blobs: dict[tuple[str, Compression], Blob] = {}

    def known(self, layer: Layer, compression: Compression) -> Known | None:
        """The form that the layer will have, if that can be told without its bytes; descriptors have OCI types.

        `blob` may still give another form: when a layer's origin has failed or a compressor's new release packs
        otherwise.
        """
        with self._lock:
            made = self._blobs.get((layer.diff_id, compression))
        forms = self._images.forms(layer.diff_id)
        if made is not None:
            return Known(made.descriptor, _origins(forms, made.descriptor.digest))
        arrived = self._arrived(layer, forms, compression)
        if arrived is not None:
            return arrived
        if not compression.kind:
            tar = self._library.known(layer).tar
            if tar is not None:
                digest = OciDigest(layer.diff_id)
                return Known(Descriptor(media_type(""), digest, tar.size), _origins(forms, digest))
            return None
        if compression.usual:
            for form in forms:
                if not form.origin and _kind(form) == compression.kind:
                    return _known(form, forms)
        return None

    def blob(self, layer: Layer, compression: Compression) -> Blob:
        """The layer's bytes in their form: fetched from where they came from, else packed from the tar.

        Raises RemoteError, EnvironmentProblem.
        """
        key = (layer.diff_id, compression)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            with self._lock:
                found = self._blobs.get(key)
            if found is None:
                found = self._make(layer, compression)
                with self._lock:
                    self._blobs[key] = found
            return found

    def remember(self, layer: Layer, descriptor: Descriptor, origin: str) -> None:
        """Note a form of a layer and where it is; "" for one that can be made again here."""
        form = Form(descriptor.media_type, descriptor.digest, descriptor.size, origin)
        record = self._images.form_record(layer.diff_id, form)
        if record is not None:
            self._library.store.submit(Batch(records=(record,)))

    def _arrived(self, layer: Layer, forms: list[Form], compression: Compression) -> Known | None:
        """The form in which a layer of the base image came."""
        if layer.content != layer.diff_id:
            return None
        came = [form for form in forms if form.origin and _kind(form) is not None]
        same = [form for form in came if _kind(form) == compression.kind]
        if not same and (compression.forced or not came):
            return None
        return _known((same or came)[0], forms)

    def _make(self, layer: Layer, compression: Compression) -> Blob:
        forms = self._images.forms(layer.diff_id)
        arrived = self._arrived(layer, forms, compression)
        # A plain tar is its own form, and is here or will be.
        if arrived is not None and arrived.descriptor.digest != layer.diff_id:
            for origin in arrived.origins:
                with contextlib.suppress(RemoteError, UsageError):
                    return self._spool(arrived.descriptor, origin)
        tar = self._library.fetch(layer).tar
        assert tar is not None
        blocks = partial(_blocks, self._library.open_tar(layer), tar.size)
        if not compression.kind:
            return Blob(Descriptor(media_type(""), OciDigest(layer.diff_id), tar.size), blocks)
        blob = self._keep(compression.pack(blocks(), tar.size), media_type(compression.kind))
        if compression.usual:
            self.remember(layer, blob.descriptor, "")
        return blob

    def _spool(self, descriptor: Descriptor, origin: str) -> Blob:
        form = Form(descriptor.media_type, descriptor.digest, descriptor.size, origin)
        return self._keep(self._images.open_form(form), descriptor.media_type)

    def _keep(self, chunks: Iterable[bytes], layer_type: str) -> Blob:
        """Write to a scratch file, for its digest and for any number of readers."""
        path = self._library.store.scratch("packed")
        hasher = hashlib.sha256()
        size = 0
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreProblem(f"cannot write to the store: {error.strerror}") from None
        try:
            for chunk in chunks:
                hasher.update(chunk)
                size += len(chunk)
                write_all(fd, chunk)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        finally:
            os.close(fd)
        return Blob(Descriptor(layer_type, OciDigest(f"sha256:{hasher.hexdigest()}"), size), partial(_file, path))


def _known(form: Form, forms: list[Form]) -> Known:
    kind = _kind(form)
    assert kind is not None
    digest = OciDigest(form.digest)
    return Known(Descriptor(media_type(kind), digest, form.size), _origins(forms, digest))


def _kind(form: Form) -> str | None:
    """What a form is packed with; None for a type that is no tar."""
    try:
        return oci.compression(Descriptor(form.media_type, OciDigest(form.digest), form.size))
    except RemoteError:
        return None


def _origins(forms: list[Form], digest: str) -> tuple[str, ...]:
    return tuple(form.origin for form in forms if form.digest == digest and form.origin)


def _blocks(fd: int, size: int) -> Iterator[bytes]:
    """A tar in pieces of BLOCK bytes."""
    offset = 0
    while offset < size:
        try:
            block = os.pread(fd, min(BLOCK, size - offset), offset)
        except OSError as error:
            raise EnvironmentProblem(f"cannot read a layer: {error.strerror}") from None
        if len(block) < min(BLOCK, size - offset):
            raise StoreProblem("a layer in the store is shorter than it should be")
        yield block
        offset += len(block)


def _file(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(BLOCK):
            yield chunk
