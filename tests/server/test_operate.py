"""What docs/operate.md and examples/serve say is true."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from serving import ROOT, Client, call, make_token

from compiler.cli.serve_options import serve_parser

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Serve

UNIT = ROOT / "examples/serve/buildgraph-serve.service"
RECIPE = ROOT / "examples/serve/Dockerfile"


def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/buildgraph", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert copy.name not in done.stderr


def test_the_unit_gives_options_that_there_are() -> None:
    command = re.search(r"ExecStart=((?:[^\\\n]|\\\n)*)", UNIT.read_text())
    assert command is not None
    words = shlex.split(command[1].replace("\\\n", " "))
    assert words[1] == "serve"
    parsed = serve_parser().parse_args(words[2:])
    assert parsed.tls_key == "${CREDENTIALS_DIRECTORY}/tls.key"


def test_the_recipe_is_a_good_dockerfile() -> None:
    done = call("check", "-f", RECIPE, ROOT)
    assert done.returncode == 0, done.stdout
    entry = re.search(r"ENTRYPOINT (\[.*\])", RECIPE.read_text())
    assert entry is not None
    words = re.findall(r'"([^"]*)"', entry[1])
    assert words[:2] == ["buildgraph", "serve"]
    assert serve_parser().parse_args(words[2:]).listen == "0.0.0.0:8980"


def test_the_table_of_the_documentation_is_understood(tmp_path: Path) -> None:
    text = (ROOT / "docs/operate.md").read_text()
    table = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert table is not None
    (tmp_path / "buildgraph.toml").write_text(table[1].replace("/srv/buildgraph", str(tmp_path / "store")))
    done = call("serve", cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 4, "all is understood, but that there is no certificate"
    assert "tls.pem" in done.stderr


def test_every_option_that_is_named_exists() -> None:
    text = (ROOT / "docs/operate.md").read_text()
    known = {*re.findall(r"--[a-z-]+", call("serve", "--help").stdout)}
    known |= {*re.findall(r"--[a-z-]+", call("serve", "token", "create", "--help").stdout)}
    known |= {*re.findall(r"--[a-z-]+", call("build", "--help").stdout), "--name", "--read-only", "--tmpfs", "--rm"}
    known |= {"--entrypoint", "--remote", "--results", "--build-context", "--seconds"}
    assert {option for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text) if option not in known} <= {"--remote_header"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a token for somebody else")
def test_a_token_that_root_made_belongs_to_who_owns_the_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    os.chown(store, 12345, 12345)
    make_token(store, "--name", "first")
    make_token(store, "--name", "second")
    status = (store / "tokens.json").stat()
    assert (status.st_uid, status.st_gid) == (12345, 12345)


def test_the_first_two_commands_are_enough(serve: Serve, tmp_path: Path) -> None:
    secret = make_token(tmp_path / "served", "--name", "me", "--scope", "read,write")
    client = Client(serve().address, secret)
    assert client.result(client.publish("a", client.put(b"x"))) is not None
    client.close()
