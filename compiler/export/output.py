"""Output: one `-o/--output` as buildx spells it, taken apart and checked."""

from __future__ import annotations

from typing import NamedTuple

from cache.errors import UsageError
from cache.reference import Reference
from compiler.dockerfile.errors import did_you_mean

STDOUT = "-"
COMPRESSIONS = {"uncompressed": "", "gzip": "gzip", "zstd": "zstd"}
"""Words of `compression=` and what layers call them."""

_LEVELS = {"": 0, "gzip": 9, "zstd": 22}
_FORM = frozenset({"compression", "compression-level", "force-compression", "oci-mediatypes", "rewrite-timestamp"})
_KEYS: dict[str, frozenset[str]] = {
    "oci": frozenset({"dest", "name", "tar"}) | _FORM,
    "docker": frozenset({"dest", "name"}) | _FORM,
    "tar": frozenset({"dest", "platform-split", "rewrite-timestamp"}),
    "local": frozenset({"dest", "platform-split", "rewrite-timestamp"}),
    "image": frozenset({"name", "push", "push-by-digest"}) | _FORM,
    "registry": frozenset({"name", "push", "push-by-digest"}) | _FORM,
}
_NOT_YET = frozenset(
    {"attestation-prefix", "buildinfo", "context", "dangling-name-prefix", "mode", "name-canonical", "oci-artifact"}
    | {"prefer-nondist-layers", "registry.insecure", "store", "unpack"}
    | {"annotation-manifest-descriptor", "annotation-index-descriptor"}
)
"""Keys that buildx has and that would change the output; leaving them out silently would give another one."""
_ANNOTATION_PREFIXES = ("annotation.", "annotation-manifest.")
_INDEX_PREFIX = "annotation-index."
_ANNOTATED = ("oci", "docker", "image", "registry")
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class Output(NamedTuple):
    """Where an image goes and in which form.

    type: oci, docker, tar, local, image or registry. dest: a path, `-` for standard output, "" where none is needed
    or given. names: instead of the image's own. compression: "", gzip or zstd; None if not asked for, as are
    compression_level, oci_mediatypes and rewrite_timestamp. tar: an oci output is one file, not a directory.
    annotations: of every manifest, sorted; index_annotations: of the index over several. platform_split: files stand
    in a directory of their platform; None is yes for several platforms and no for one.
    """

    type: str
    dest: str = ""
    names: tuple[Reference, ...] = ()
    push: bool = False
    push_by_digest: bool = False
    compression: str | None = None
    compression_level: int | None = None
    force_compression: bool = False
    oci_mediatypes: bool | None = None
    rewrite_timestamp: bool | None = None
    tar: bool = True
    annotations: tuple[tuple[str, str], ...] = ()
    index_annotations: tuple[tuple[str, str], ...] = ()
    platform_split: bool | None = None


def parse_output(text: str) -> Output:
    """Read `KEY=VALUE,…` (CSV, so that a field with a comma is quoted), a directory, or `-`; UsageError otherwise."""
    if not text:
        raise UsageError("an output is empty", hint="for example: --output type=local,dest=out")
    fields = _fields(text)
    if fields == [text] and not text.startswith("type="):
        # buildx's short form: all that is one field and names no type is a path.
        return Output("tar", dest=STDOUT) if text == STDOUT else Output("local", dest=text)
    attributes: dict[str, str] = {}
    annotations: dict[str, str] = {}
    index_annotations: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        prefix = next((prefix for prefix in _ANNOTATION_PREFIXES if key.startswith(prefix)), "")
        if not equals:
            raise UsageError(f"output {text!r}: {field!r} is not KEY=VALUE")
        if prefix:
            annotations[key.removeprefix(prefix)] = value
        elif key.startswith(_INDEX_PREFIX):
            index_annotations[key.removeprefix(_INDEX_PREFIX)] = value
        else:
            attributes[key.strip().lower()] = value
    if attributes.get("dest") == "":
        # A variable that was empty, mostly: an archive on the terminal or in a pipe is not what was meant.
        hint = f"name a file or directory; {STDOUT} is standard output"
        raise UsageError(f"output {text!r}: dest is empty", hint=hint)
    kind = attributes.pop("type", "")
    _check_keys(text, kind, attributes, bool(annotations or index_annotations))
    output = _output(text, kind, attributes)._replace(
        annotations=tuple(sorted(annotations.items())), index_annotations=tuple(sorted(index_annotations.items()))
    )
    return _checked(text, output)


def _fields(text: str) -> list[str]:
    import csv

    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise UsageError(f"output {text!r} is not a list of comma-separated fields: {error}") from None


def _check_keys(text: str, kind: str, attributes: dict[str, str], annotated: bool) -> None:
    if not kind:
        raise UsageError(f"output {text!r} has no type", hint=f"types are {', '.join(sorted(_KEYS))}")
    if kind == "cacheonly":
        raise UsageError("type=cacheonly is not supported yet")
    if kind not in _KEYS:
        types = f"types are {', '.join(sorted(_KEYS))}"
        raise UsageError(f"unknown output type {kind!r}{did_you_mean(kind, _KEYS)}", hint=types)
    known = frozenset().union(*_KEYS.values())
    for key in attributes:
        # `annotation[linux/amd64].KEY` and the other places of annotations.
        stem = key.partition(".")[0].partition("[")[0]
        if key in _NOT_YET or (stem in _NOT_YET and stem.startswith("annotation")) or key.startswith("annotation["):
            raise UsageError(f"output type={kind}: {key} is not supported yet")
        if key in known and key not in _KEYS[kind]:
            raise UsageError(f"output type={kind} takes no {key}")
        if key not in known:
            raise UsageError(f"output type={kind}: unknown key {key!r}{did_you_mean(key, _KEYS[kind])}")
    if annotated and kind not in _ANNOTATED:
        raise UsageError(f"output type={kind} takes no annotations")


def _output(text: str, kind: str, attributes: dict[str, str]) -> Output:
    def flag(key: str) -> bool | None:
        value = attributes.get(key)
        if value is None:
            return None
        if value not in _TRUE | _FALSE:
            raise UsageError(f"output {text!r}: {key} is true or false, not {value!r}")
        return value in _TRUE

    push = flag("push")
    compression = None
    if (word := attributes.get("compression")) is not None:
        if word == "estargz":
            raise UsageError(f"output {text!r}: compression=estargz is not supported yet")
        if word not in COMPRESSIONS:
            raise UsageError(f"output {text!r}: unknown compression {word!r}{did_you_mean(word, COMPRESSIONS)}")
        compression = COMPRESSIONS[word]
    level = None
    if (number := attributes.get("compression-level")) is not None:
        most = _LEVELS[compression if compression is not None else "gzip"]
        if not (number.isascii() and number.isdigit() and len(number) < 4 and int(number) <= most):
            raise UsageError(f"output {text!r}: the compression level is a number from 0 to {most}, not {number!r}")
        level = int(number)
    names = tuple(Reference.parse(name.strip()) for name in attributes.get("name", "").split(",") if name.strip())
    return Output(
        kind,
        attributes.get("dest", ""),
        names,
        push=kind == "registry" if push is None else push,
        push_by_digest=flag("push-by-digest") or False,
        compression=compression,
        compression_level=level,
        force_compression=flag("force-compression") or False,
        oci_mediatypes=flag("oci-mediatypes"),
        rewrite_timestamp=flag("rewrite-timestamp"),
        tar=flag("tar") is not False,
        platform_split=flag("platform-split"),
    )


def _checked(text: str, output: Output) -> Output:
    """What does not fit together."""
    if output.type == "local" and output.dest in ("", STDOUT):
        raise UsageError(f"output {text!r} needs dest=DIRECTORY", hint="for example: --output type=local,dest=out")
    if not output.tar and output.dest in ("", STDOUT):
        raise UsageError(
            f"output {text!r} needs dest=DIRECTORY, because of tar=false", hint="without tar=false it is one file"
        )
    if (output.annotations or output.index_annotations) and output.oci_mediatypes is False:
        raise UsageError(f"output {text!r}: docker's manifests have no annotations; leave out oci-mediatypes=false")
    if output.compression == "zstd" and output.oci_mediatypes is False:
        raise UsageError(f"output {text!r}: zstd layers need OCI's media types; leave out oci-mediatypes=false")
    if output.type in ("oci", "tar") and not output.dest:
        return output._replace(dest=STDOUT)
    return output
