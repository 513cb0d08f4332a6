"""--output as buildx reads it."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import UsageError
from cache.reference import Reference
from compiler.export.output import Output, parse_output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out", Output("local", "out")),
        ("-", Output("tar", "-")),
        ("dest=out", Output("local", "dest=out")),
        ("type=local,dest=a b", Output("local", "a b")),
        ("type=tar", Output("tar", "-")),
        ("type=oci,dest=x.tar", Output("oci", "x.tar")),
        ("type=oci,dest=x,tar=false", Output("oci", "x", tar=False)),
        ('type=oci,"dest=a,b"', Output("oci", "a,b")),
        ("Type=docker,dest=x", Output("docker", "x")),
        ("type=docker", Output("docker")),
        ("type=registry", Output("registry", push=True)),
        ("type=registry,push=false", Output("registry")),
        (
            "type=image,name=example.test/a:1,push=true,compression=zstd,compression-level=22,force-compression=1",
            Output(
                "image", names=(Reference.parse("example.test/a:1"),), push=True, compression="zstd",
                compression_level=22, force_compression=True,
            ),
        ),
        (
            'type=registry,"name=example.test/a,example.test/b",oci-mediatypes=false,rewrite-timestamp=true',
            Output(
                "registry", push=True, names=(Reference.parse("example.test/a"), Reference.parse("example.test/b")),
                oci_mediatypes=False, rewrite_timestamp=True,
            ),
        ),
        ("type=oci,compression=uncompressed", Output("oci", "-", compression="")),
        (
            "type=oci,dest=x,annotation.Z=1,annotation-manifest.a.b=x=y",
            Output("oci", "x", annotations=(("Z", "1"), ("a.b", "x=y"))),
        ),
        (
            "type=oci,dest=x,annotation-index.b=2,annotation-index.a=1",
            Output("oci", "x", index_annotations=(("a", "1"), ("b", "2"))),
        ),
        ("type=local,dest=x,platform-split=false", Output("local", "x", platform_split=False)),
    ],
)  # fmt: skip
def test_outputs(text: str, expected: Output) -> None:
    assert parse_output(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("dest=a,name=b", "no type"),
        ("type=local", "needs dest=DIRECTORY"),
        ("type=local,dest=-", "needs dest=DIRECTORY"),
        ("type=oci,dest=", "dest is empty"),
        ("type=docker,dest=,name=a", "dest is empty"),
        ("type=oci,tar=false", "tar=false"),
        ("type=ocii,dest=x", "did you mean oci"),
        ("type=oci,dst=x", "did you mean dest"),
        ("type=oci,dest", "'dest' is not KEY=VALUE"),
        ("type=local,dest=x,compression=gzip", "takes no compression"),
        ("type=local,dest=x,annotation.a=b", "takes no annotations"),
        ("type=oci,compression=gzp", "did you mean gzip"),
        ("type=oci,compression=estargz", "not supported yet"),
        ("type=oci,compression-level=10", "from 0 to 9"),
        ("type=oci,compression-level=-1", "from 0 to 9"),
        ("type=oci,compression=zstd,compression-level=23", "from 0 to 22"),
        ("type=image,push=yes", "true or false"),
        ("type=image,registry.insecure=true", "registry.insecure is not supported yet"),
        ("type=image,annotation-index-descriptor.a=b", "not supported yet"),
        ("type=image,annotation-index.a=b,oci-mediatypes=false", "no annotations"),
        ("type=tar,annotation-index.a=b", "takes no annotations"),
        ("type=oci,platform-split=false", "takes no platform-split"),
        ("type=image,annotation[linux/amd64].a=b", "not supported yet"),
        ("type=image,annotation.a=b,oci-mediatypes=false", "no annotations"),
        ("type=image,compression=zstd,oci-mediatypes=false", "zstd layers need OCI"),
        ("type=image,name=UPPER/case", "lower case"),
        ("type=cacheonly", "not supported yet"),
        ('type=oci,"dest=x', "comma-separated"),
    ],
)
def test_what_does_not_fit_is_said(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_output(text)


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from('typedsna=,"-. \n0cilo'), max_size=40))
def test_nothing_but_usage_errors(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_output(text)
