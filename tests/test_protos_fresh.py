"""The generated code beside telemetry.proto is what the pinned toolchain makes of it."""

import os
import subprocess
import sys
from pathlib import Path

PROTOS = Path(__file__).parent.parent / "protos"
FOLDER = Path("wattledger_protos/v1")


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    """`make protos` would change nothing; else somebody edited one side alone."""
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *outputs, str(PROTOS / FOLDER / "telemetry.proto")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, check=True, env={**os.environ, "PATH": path}, capture_output=True)
    made = sorted((tmp_path / FOLDER).iterdir())
    assert len(made) == 4
    for file in made:
        assert file.read_text() == (PROTOS / FOLDER / file.name).read_text(), f"{file.name} is stale: run `make protos`"
