"""The options of RUN --mount: defaults by type, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.dockerfile.errors import DockerfileError
from compiler.dockerfile.expand import expand
from compiler.dockerfile.mounts import Mount, parse_mount
from compiler.dockerfile.source import Source, Span

MOUNT_WORDS = ["type=", "cache", "secret", "target=", "/a", ",", "=", '"', "id=", "rw", "ro", "size=", "9", "$", "é"]
SPAN = Span(Source("Dockerfile", "RUN --mount=… x\n"), 1, 5, 1, 13)


def parse(text: str) -> Mount:
    return parse_mount(text, SPAN)


def test_defaults_by_type() -> None:
    assert parse("target=/a") == ("bind", "/a", "", "", True, "", "", None, 0, 0, 0, False, "")
    assert parse("type=cache,target=b") == ("cache", "b", "", "", False, "", "shared", 0o755, 0, 0, 0, False, "")
    assert parse("type=tmpfs,dst=/t,size=1.5g") == (
        "tmpfs",
        "/t",
        "",
        "",
        False,
        "",
        "",
        None,
        0,
        0,
        3 << 29,
        False,
        "",
    )
    assert parse("type=secret,id=a/b") == (
        "secret", "/run/secrets/b", "", "", True, "a/b", "", 0o400, 0, 0, 0, False, "",
    )  # fmt: skip
    assert parse("type=ssh") == ("ssh", "", "", "", True, "default", "", 0o600, 0, 0, 0, False, "")


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("Type=BIND,Source=x,destination=/a,rw", "read_only", False),
        ("target=/a,rw,ro", "read_only", True),
        ("target=/a,rw=false", "read_only", True),
        ("type=cache,target=/a,readonly", "read_only", True),
        ('"target=/a,b",source=x', "target", "/a,b"),
        ("type=cache,target=/a,sharing=LOCKED", "sharing", "locked"),
        ("type=cache,target=/a,mode=1777", "mode", 0o1777),
        ("uid=5,type=cache,target=/a", "uid", 5),
        ("required,type=secret,id=a", "required", True),
        ("type=secret,source=a", "id", "a"),
        ("type=secret,target=/x/y", "id", "y"),
        ("type=secret,id=a,env=A", "target", ""),
        ("type=secret,id=a,env=A,target=/x", "target", "/x"),
        ("type=secret,env=A", "id", "A"),
        ("from=base,target=/a", "from_", "base"),
        ("type=tmpfs,target=/a,size=64m", "size", 64 << 20),
    ],
)
def test_options(text: str, field: str, expected: object) -> None:
    assert getattr(parse(text), field) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("type=bnid,target=/a", "unknown type bnid, did you mean bind?"),
        ("targt=/a", "unknown option targt, did you mean target?"),
        ("target", "needs a value"),
        ("target=/", "cannot be /"),
        ("target=//x/..", "cannot be /"),
        ("target=/a,ro=yes", "true or false"),
        ("target=/a,sharing=shared", "sharing is for type cache only"),
        ("type=cache,target=/a,sharing=x", "unknown sharing"),
        ("target=/a,size=1", "size is for type tmpfs only"),
        ("type=tmpfs,target=/a,size=big", "size is a number"),
        ("target=/a,mode=755", "mode is for type"),
        ("type=cache,target=/a,mode=9", "octal"),
        ("type=cache,target=/a,uid=-1", "uid is a number"),
        ("type=cache,target=/a,gid=4294967296", "gid is a number"),
        ("target=/a,required", "required is for type secret and ssh only"),
        ("target=/a,env=A", "env is for type secret only"),
        ("type=secret", "needs an id or a target"),
        ("type=secret,id=a,source=b", "give one"),
        ("type=secret,id=a,from=b", "does not come from a stage"),
        ("from=$x,target=/a", "takes no variables"),
        ('"target=/a', "quote"),
        ('target="/a"', "quote"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    assert message in caught.value.message
    assert caught.value.span is SPAN


def test_variables_cannot_bring_in_options() -> None:
    values = {"T": "/a,from=other", "X": ""}
    mount = parse_mount("type=cache,target=$T,id=${X:-i}", SPAN, lambda value: expand(value, values.get))
    assert (mount.target, mount.from_, mount.id) == ("/a,from=other", "", "i")
    with pytest.raises(DockerfileError, match="unsupported modifier"):
        parse_mount("target=${X:=a}", SPAN, lambda value: expand(value, values.get))


@settings(deadline=None)
@given(st.lists(st.sampled_from(MOUNT_WORDS), max_size=8))
def test_any_text_is_a_mount_or_refused(words: list[str]) -> None:
    try:
        parse("".join(words))
    except DockerfileError as error:
        message = error.message
    else:
        message = "--mount: "
    assert message.startswith("--mount: ")
