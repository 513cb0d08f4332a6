"""Mount: one `--mount` of RUN, with its options checked and its defaults filled in."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, NamedTuple

from compiler.dockerfile.errors import DockerfileError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from compiler.dockerfile.source import Span

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")

_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = (
    "type", "target", "source", "from", "readonly", "readwrite", "id", "sharing", "mode", "uid", "gid", "size",
    "required", "env",
)  # fmt: skip
_BARE = frozenset({"readonly", "readwrite", "required"})
_ONLY = {
    "sharing": ("cache",),
    "size": ("tmpfs",),
    "required": ("secret", "ssh"),
    "env": ("secret",),
    "mode": ("cache", "secret", "ssh"),
    "uid": ("cache", "secret", "ssh"),
    "gid": ("cache", "secret", "ssh"),
}
"""Keys that mean something for some types only."""
_MODES = {"cache": 0o755, "secret": 0o400, "ssh": 0o600}
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))? ?([kmgtp]?)(?:i?b)?", re.IGNORECASE | re.ASCII)


class Mount(NamedTuple):
    """One mount of a RUN.

    target: as written, so relative to the working directory where it has no leading `/`; `""` is the working directory
        for bind, cache and tmpfs, no file for a secret that only goes into the environment, and for ssh the builder's
        choice, `/run/buildkit/ssh_agent.N`.
    from_: stage, named context or image; `""` is the build context for bind and an empty directory for cache.
    id: of a cache as written, its cleaned target where empty; of a secret or an ssh agent always set.
    sharing: of a cache; `shared` where not written.
    mode: permission bits; None for types that take none.
    size: bytes a tmpfs may hold; 0 is no limit. env: the variable that a secret goes into, or `""`.
    """

    type: str
    target: str
    source: str
    from_: str
    read_only: bool
    id: str
    sharing: str
    mode: int | None
    uid: int
    gid: int
    size: int
    required: bool
    env: str


def parse_mount(text: str, span: Span, expand: Callable[[str], str] | None = None) -> Mount:
    """Understand one `--mount` value; DockerfileError for everything that the language refuses.

    expand: replaces variables in each value, so that a comma in a variable's value cannot bring in another option. Left
    out, the text is taken to be expanded already. An ExpansionError of it becomes a DockerfileError.
    """
    try:
        return _mount(_options(text, expand))
    except ValueError as error:
        raise DockerfileError(f"--mount: {error}", span) from None


def check_unexpanded(text: str, span: Span) -> None:
    """Refuse what is wrong whatever the variables are: CSV that is none, a variable in `from`."""
    try:
        _options(text, lambda value: value)
    except ValueError as error:
        raise DockerfileError(f"--mount: {error}", span) from None


def _options(text: str, expand: Callable[[str], str] | None) -> dict[str, str]:
    """Key to value, the last of a repeated key winning; keys lower-cased, without aliases."""
    options: dict[str, str] = {}
    for field in _fields(text):
        written, equals, value = field.partition("=")
        key = _ALIASES.get(written.lower(), written.lower())
        if key not in _KEYS:
            raise ValueError(f"unknown option {written}{did_you_mean(written, (*_KEYS, *_ALIASES))}")
        if not equals:
            if key not in _BARE:
                raise ValueError(f"{field} needs a value: {field}=…")
            value = "true"
        elif key == "from":
            if re.search(r"\$.", value):
                raise ValueError(f"from takes no variables: define a stage with FROM {value} AS name and name that")
        elif expand is not None:
            value = expand(value)
        if key in ("readonly", "readwrite"):
            # The later of the two decides.
            options.pop("readwrite" if key == "readonly" else "readonly", None)
        options[key] = value
    return options


def _fields(text: str) -> list[str]:
    """The fields of one line of CSV: `a,"b,c","d""e"`."""
    if not text:
        raise ValueError("the value is empty")
    fields: list[str] = []
    at = 0
    while True:
        if text.startswith('"', at):
            match = re.compile(r'"((?:[^"]|"")*+)"(?=,|\Z)').match(text, at)
            if match is None:
                raise ValueError(f"a quote in {text} is not closed, or not followed by a comma")
            fields.append(match[1].replace('""', '"'))
            at = match.end()
        else:
            end = text.find(",", at)
            field = text[at:] if end < 0 else text[at:end]
            if '"' in field:
                raise ValueError(f"a quote stands inside {field}; quote the whole option")
            fields.append(field)
            at += len(field)
        if at >= len(text):
            return fields
        at += 1


def _mount(options: dict[str, str]) -> Mount:
    written = options.get("type", "bind")
    kind = written.lower()
    if kind not in TYPES:
        raise ValueError(f"unknown type {written}{did_you_mean(written, TYPES)}")
    for key in options:
        if kind not in _ONLY.get(key, TYPES):
            raise ValueError(f"{key} is for type {' and '.join(_ONLY[key])} only, not for {kind}")
    sharing = options.get("sharing", "shared" if kind == "cache" else "").lower()
    if kind == "cache" and sharing not in SHARING:
        raise ValueError(f"unknown sharing {sharing}{did_you_mean(sharing, SHARING)}")
    target = options.get("target", "")
    identity = options.get("id", "")
    if kind == "secret":
        identity, target = _secret(options)
    elif kind == "ssh":
        identity = identity or "default"
    if target and posixpath.normpath(target).strip("/") == "" and target.startswith("/"):
        raise ValueError("the target cannot be /")
    if "readonly" in options:
        read_only = _boolean("readonly", options["readonly"])
    elif "readwrite" in options:
        read_only = not _boolean("readwrite", options["readwrite"])
    else:
        read_only = kind not in ("cache", "tmpfs")
    return Mount(
        type=kind,
        target=target,
        source=options.get("source", "") if kind != "secret" else "",
        from_=options.get("from", ""),
        read_only=read_only,
        id=identity,
        sharing=sharing,
        mode=_number("mode", options["mode"], 8) if "mode" in options else _MODES.get(kind),
        uid=_number("uid", options.get("uid", "0"), 10),
        gid=_number("gid", options.get("gid", "0"), 10),
        size=_size(options["size"]) if "size" in options else 0,
        required=_boolean("required", options.get("required", "false")),
        env=options.get("env", ""),
    )


def _secret(options: dict[str, str]) -> tuple[str, str]:
    """The id of a secret and the file that it appears as, `""` for none."""
    if options.get("from"):
        raise ValueError("a secret does not come from a stage: from is not for type secret")
    if options.get("id") and options.get("source"):
        raise ValueError("id and source name the same thing; give one")
    target = options.get("target", "")
    identity = options.get("id") or options.get("source") or posixpath.basename(target) or options.get("env", "")
    if not identity:
        raise ValueError("a secret needs an id or a target")
    if not target and not options.get("env"):
        target = f"/run/secrets/{posixpath.basename(identity)}"
    return identity, target


def _boolean(key: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ValueError(f"{key} is true or false, not {value}")


def _number(key: str, value: str, base: int) -> int:
    digits = "01234567" if base == 8 else "0123456789"
    if not value or len(value) > 12 or value.strip(digits) or int(value, base) >= 2**32:
        raise ValueError(f"{key} is {'an octal number' if base == 8 else 'a number'}, not {value}")
    return int(value, base)


def _size(value: str) -> int:
    """Bytes, from `64`, `64k`, `1.5g`, `32MiB`; all units count in powers of 1024."""
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError(f"size is a number of bytes such as 64m or 1.5g, not {value}")
    whole, fraction, unit = match[1], match[2] or "", match[3].lower()
    scale = 1 << 10 * " kmgtp".index(unit or " ")
    return int(whole) * scale + int(fraction or 0) * scale // int(10 ** len(fraction))
