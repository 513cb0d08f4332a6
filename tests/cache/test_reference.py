"""Image names: docker's rules for hosts, defaults, tags and digests."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.digest import OciDigest
from cache.errors import exit_code
from cache.reference import InvalidReference, Reference

DIGEST = OciDigest("sha256:" + "a1" * 32)


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25", "nginx:1.25"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}", f"nginx@{DIGEST}"),
        (f"nginx:1.25@{DIGEST}", f"docker.io/library/nginx:1.25@{DIGEST}", f"nginx:1.25@{DIGEST}"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app:x"),
        ("ghcr.io/a/b_c/d--e", "ghcr.io/a/b_c/d--e:latest", "ghcr.io/a/b_c/d--e:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("host:5000/app", "host:5000/app:latest", "host:5000/app:latest"),
        ("docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"),
        ("nginx:Tag_With.Every-thing", "docker.io/library/nginx:Tag_With.Every-thing", "nginx:Tag_With.Every-thing"),
    ],
)
def test_names_are_read_and_written_as_docker_does(text: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == canonical
    assert reference.familiar == familiar


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("Nginx", "lower case"),
        ("MyOrg/app", "lower case"),
        ("ghcr.io/MyOrg/app", "lower case"),
        ("nginx:", "no tag"),
        ("nginx:-x", "no tag"),
        ("nginx:" + "x" * 129, "no tag"),
        ("nginx@sha256:abc", "64 lower-case hex"),
        ("nginx@md5:abc", "64 lower-case hex"),
        ("nginx@", "64 lower-case hex"),
        ("ab" * 32, "id"),
        ("a//b", "repository"),
        ("/a", "repository"),
        ("a/", "repository"),
        ("a..b", "repository"),
        ("-bad.host/x", "host"),
        ("host:port/x", "host"),
        ("a b", "repository"),
        ("a\n", "repository"),
        ("../../etc", "host"),
        ("x/" + "a" * 255, "longer"),
        ("x" * 10_000, "too long"),
        ("https://ghcr.io/a", "host"),
    ],
)
def test_wrong_names_say_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(InvalidReference, match=reason) as caught:
        Reference.parse(text)
    assert exit_code(caught.value) == 2


def test_the_digest_decides_what_a_registry_is_asked_for() -> None:
    assert Reference.parse("nginx").locator == "latest"
    assert Reference.parse(f"nginx:1@{DIGEST}").locator == DIGEST
    assert Reference.parse(f"nginx@{DIGEST}").tag is None


_component = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True).filter(lambda s: len(s) < 40)


@settings(deadline=None)
@given(
    host=st.sampled_from(["localhost/", "localhost:5000/", "ghcr.io/", "docker.io/"]),
    parts=st.lists(_component, min_size=1, max_size=4),
    tag=st.just("") | st.from_regex(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    digest=st.sampled_from(["", f"@{DIGEST}"]),
)
def test_both_written_forms_are_read_back_as_the_same(host: str, parts: list[str], tag: str, digest: str) -> None:
    reference = Reference.parse(host + "/".join(parts) + tag + digest)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


@settings(deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference
