"""Generate the stubs beside the .proto files; `--check` only says whether they are fresh."""

from __future__ import annotations

import argparse
import importlib.resources
import subprocess
import sys
import tempfile
from pathlib import Path

from google.rpc import status_pb2

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("buildgraph/v1")


def generate(target: Path) -> None:
    """Write `*_pb2.py` and `*_pb2.pyi`, and `*_pb2_grpc.*` for files with services, below `target`."""
    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    common = str(Path(status_pb2.__file__).parents[2])  # google/rpc/status.proto lies beside its stub
    for source in sorted((ROOT / PACKAGE).glob("*.proto")):
        outputs = [f"--python_out={target}", f"--mypy_out={target}"]
        if "\nservice " in source.read_text(encoding="utf-8"):
            outputs += [f"--grpc_python_out={target}", f"--mypy_grpc_out={target}"]
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", f"-I{well_known}", f"-I{common}", *outputs]
        plugins = Path(sys.executable).parent
        command += [f"--plugin=protoc-gen-{name}={plugins / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
        subprocess.run([*command, str(source.relative_to(ROOT))], cwd=ROOT, check=True)


def stubs(directory: Path) -> dict[str, bytes]:
    """Name → content of the generated files."""
    return {path.name: path.read_bytes() for path in sorted((directory / PACKAGE).glob("*_pb2*"))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the stubs are not fresh")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        generate(Path(directory))
        fresh = stubs(Path(directory))
        if fresh == stubs(ROOT):
            return 0
        if arguments.check:
            sys.stderr.write("the stubs are not what the .proto files say; run proto/generate.py\n")
            return 1
        for name, content in fresh.items():
            (ROOT / PACKAGE / name).write_bytes(content)
        for name in stubs(ROOT).keys() - fresh.keys():
            (ROOT / PACKAGE / name).unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
