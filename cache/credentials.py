"""Credentials for registries, found where docker and podman keep them."""

from __future__ import annotations

import base64
import json
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from cache.errors import EnvironmentProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

HELPER_SECONDS = 30
"""A credential helper may have to ask a keychain, which may ask a person; beyond this it hangs."""
_MOST_CONFIG = 4 << 20
"""Bytes of a config file; docker's own stay below a few kilobytes."""
_DOCKER_HUB = "https://index.docker.io/v1/"
"""The key under which docker has kept Docker Hub's credentials since the first version of its registry."""
_TOKEN_USER = "<token>"  # noqa: S105 - docker's marker for «the secret is an identity token»
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Credentials(NamedTuple):
    """What proves to a registry who we are: a name and a password, or an identity token. Never shown."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({'token' if self.identity_token else 'password'} hidden)"


def find(host: str, environ: Mapping[str, str] | None = None) -> Credentials | None:
    """The credentials for a registry host (`docker.io`, `localhost:5000`); None when nobody logged in there.

    Looks into docker's config (`$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`), there at `credHelpers`,
    then `credsStore`, then `auths`; then into podman's (`$REGISTRY_AUTH_FILE`, else
    `$XDG_RUNTIME_DIR/containers/auth.json`).
    EnvironmentProblem for a file that cannot be read and a helper that is missing or fails: going on without
    credentials would end in a «not found» that hides the reason. No message holds any content of either.
    """
    environ = os.environ if environ is None else environ
    for path in _config_files(environ):
        config = _load(path)
        found = config and (_from_helper(config, host, path, environ) or _from_auths(config, host, path))
        if found:
            return found
    return None


def _config_files(environ: Mapping[str, str]) -> list[str]:
    home = environ.get("HOME") or os.path.expanduser("~")
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    podman = os.path.join(runtime, "containers", "auth.json")
    if not environ.get("XDG_RUNTIME_DIR"):
        podman = os.path.join(runtime, "auth.json")
    return [
        os.path.join(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json"),
        environ.get("REGISTRY_AUTH_FILE") or podman,
    ]


def _load(path: str) -> dict[str, object] | None:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_CONFIG + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise EnvironmentProblem(f"cannot read the registry credentials in {path}: {error.strerror}") from None
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        # Not chained: the decoder's exception carries the whole file.
        raise EnvironmentProblem(f"{path} is not valid JSON", hint="repair it, or log in again with docker login")
    return config


def _from_helper(config: dict[str, object], host: str, path: str, environ: Mapping[str, str]) -> Credentials | None:
    helpers = config.get("credHelpers")
    helpers = helpers if isinstance(helpers, dict) else {}
    name = next((helpers[key] for key in _names(host) if helpers.get(key)), None) or config.get("credsStore")
    if not name:
        return None
    if not isinstance(name, str) or not _HELPER_NAME.fullmatch(name):
        raise EnvironmentProblem(f"{path} names a credential helper with an impossible name")
    return _ask(name, _names(host)[0], path, environ)


def _ask(name: str, server: str, path: str, environ: Mapping[str, str]) -> Credentials | None:
    """Run `docker-credential-NAME get`, the server on its stdin, `{"Username": …, "Secret": …}` on its stdout."""
    import subprocess  # 10 ms that only users of a helper pay

    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=HELPER_SECONDS,
            env=dict(environ),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(f"{program} did not answer within {HELPER_SECONDS} seconds") from None
    except OSError as error:
        raise EnvironmentProblem(
            f"{path} asks for the credential helper {program}, which cannot be started: {error.strerror}",
            hint="install it, or take it out of credsStore or credHelpers",
        ) from None
    if done.returncode != 0:
        if b"credentials not found" in done.stdout:
            return None
        raise EnvironmentProblem(f"{program} failed with exit code {done.returncode} for {server}")
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, LookupError, TypeError):
        raise EnvironmentProblem(f"{program} gave an answer that is not its protocol's") from None
    if not secret:
        return None
    return Credentials(identity_token=secret) if username == _TOKEN_USER else Credentials(username, secret)


def _from_auths(config: dict[str, object], host: str, path: str) -> Credentials | None:
    auths = config.get("auths")
    if not isinstance(auths, dict):
        return None
    names = _names(host)
    entry = next((auths[name] for name in names if auths.get(name)), None)
    if entry is None:
        # Old clients wrote whole URLs as keys.
        entry = next((auths[key] for key in sorted(auths) if _host_of(key) in names and auths[key]), None)
    if not isinstance(entry, dict):
        return None
    if token := entry.get("identitytoken"):
        return Credentials(identity_token=str(token))
    if auth := entry.get("auth"):
        try:
            username, colon, password = base64.b64decode(str(auth), validate=True).decode().partition(":")
        except ValueError:
            username, colon, password = "", "", ""
        if not colon:
            raise EnvironmentProblem(f"{path}: the entry for {host} is not base64 of name:password") from None
        # Docker pads passwords with NUL bytes at the end when it decodes; so do its files.
        return Credentials(username, password.rstrip("\0"))
    if entry.get("username") and entry.get("password"):
        return Credentials(str(entry["username"]), str(entry["password"]))
    return None


def _names(host: str) -> tuple[str, ...]:
    """The keys that a host is kept under, docker's own first."""
    if host in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        return (_DOCKER_HUB, "index.docker.io", "docker.io", "registry-1.docker.io")
    return (host,)


def _host_of(key: str) -> str:
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]
