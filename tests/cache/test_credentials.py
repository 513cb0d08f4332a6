"""Credentials: found in docker's and podman's files and helpers, and never shown."""

import base64
import json
import os
import stat
import traceback
from pathlib import Path

import pytest

from cache import credentials
from cache.credentials import Credentials, find
from cache.errors import EnvironmentProblem

SECRET = "hunter2-äöü:with:colons"


def auth(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    runtime = tmp_path / "run"
    (runtime / "containers").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    return {
        "HOME": str(tmp_path / "home"),
        "DOCKER_CONFIG": str(tmp_path),
        "XDG_RUNTIME_DIR": str(runtime),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }


def write(path: Path, config: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))


def helper(tmp_path: Path, name: str, script: str) -> None:
    path = tmp_path / "bin" / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_nobody_logged_in(environ: dict[str, str]) -> None:
    assert find("ghcr.io", environ) is None


def test_a_password(tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path / "config.json", {"auths": {"localhost:5000": {"auth": auth("me", SECRET)}}})
    assert find("localhost:5000", environ) == Credentials("me", SECRET)
    assert find("localhost", environ) is None


def test_the_default_file_is_in_the_home(tmp_path: Path, environ: dict[str, str]) -> None:
    del environ["DOCKER_CONFIG"]
    write(tmp_path / "home/.docker/config.json", {"auths": {"ghcr.io": {"auth": auth("me", "x")}}})
    assert find("ghcr.io", environ) == Credentials("me", "x")


def test_an_identity_token_goes_before_a_password(tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path / "config.json", {"auths": {"a.example": {"auth": auth("u", "p"), "identitytoken": SECRET}}})
    assert find("a.example", environ) == Credentials(identity_token=SECRET)


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
def test_docker_hub_has_several_keys(tmp_path: Path, environ: dict[str, str], key: str) -> None:
    write(tmp_path / "config.json", {"auths": {key: {"auth": auth("me", "x")}}})
    assert find("docker.io", environ) == Credentials("me", "x")


def test_keys_of_old_clients_are_urls(tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path / "config.json", {"auths": {"https://old.example/v1/": {"auth": auth("me", "x")}}})
    assert find("old.example", environ) == Credentials("me", "x")


def test_podmans_file_is_the_fallback(tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path / "run/containers/auth.json", {"auths": {"a.example": {"auth": auth("pod", "man")}}})
    assert find("a.example", environ) == Credentials("pod", "man")
    write(tmp_path / "config.json", {"auths": {"a.example": {"auth": auth("dock", "er")}}})
    assert find("a.example", environ) == Credentials("dock", "er")


def test_a_helper_is_asked_for_its_hosts_and_the_store_for_all_others(tmp_path: Path, environ: dict[str, str]) -> None:
    script = 'read -r server; printf \'{"ServerURL":"%s","Username":"NAME","Secret":"%s"}\' "$server" "$server"'
    helper(tmp_path, "one", script.replace("NAME", "one"))
    helper(tmp_path, "all", script.replace("NAME", "<token>"))
    write(tmp_path / "config.json", {"credHelpers": {"a.example": "one"}, "credsStore": "all"})
    assert find("a.example", environ) == Credentials("one", "a.example")
    assert find("b.example", environ) == Credentials(identity_token="b.example")
    assert find("docker.io", environ) == Credentials(identity_token="https://index.docker.io/v1/")


def test_a_helper_that_knows_nothing_is_no_failure(tmp_path: Path, environ: dict[str, str]) -> None:
    helper(tmp_path, "none", "echo 'credentials not found in native keychain'; exit 1")
    write(tmp_path / "config.json", {"credsStore": "none"})
    assert find("a.example", environ) is None


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (f"echo {SECRET}; echo {SECRET} >&2; exit 3", "exit code 3"),
        (f"echo {SECRET}", "protocol"),
        (f'echo \'{{"Secret":"{SECRET}"}}\'', "protocol"),
        (f"echo {SECRET}; sleep 5", "did not answer"),
    ],
)
def test_a_helper_that_fails_says_so_without_its_output(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    if "sleep" in script:
        monkeypatch.setattr(credentials, "HELPER_SECONDS", 0.3)
    helper(tmp_path, "bad", script)
    write(tmp_path / "config.json", {"credsStore": "bad"})
    with pytest.raises(EnvironmentProblem, match=message) as caught:
        find("a.example", environ)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + caught.value.hint


def test_a_missing_helper_is_named(tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path / "config.json", {"credsStore": "desktop"})
    with pytest.raises(EnvironmentProblem, match="docker-credential-desktop"):
        find("a.example", environ)


@pytest.mark.parametrize("name", ["../evil", "a/b", "-x", 5, "a b"])
def test_a_helper_is_a_name_and_not_a_path(tmp_path: Path, environ: dict[str, str], name: object) -> None:
    write(tmp_path / "config.json", {"credsStore": name})
    with pytest.raises(EnvironmentProblem, match="impossible name"):
        find("a.example", environ)


@pytest.mark.parametrize(
    "text",
    [
        "{hunter2",
        "[]",
        '{"auths":{"a.example":{"auth":"hunter2!"}}}',
        '{"auths":{"a.example":{"auth":"aHVudGVyMg=="}}}',  # hunter2 without a name
    ],
)
def test_a_broken_file_is_named_without_its_content(tmp_path: Path, environ: dict[str, str], text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(EnvironmentProblem, match=r"config\.json") as caught:
        find("a.example", environ)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_secrets_do_not_show() -> None:
    for secret in (Credentials("me", SECRET), Credentials(identity_token=SECRET)):
        assert SECRET not in f"{secret} {secret!r} {(secret,)}"
