"""Generates visavis/v1 from protos/visavis/v1: `python -m tools.generate_stubs` writes, `--check` only compares."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROTO_ROOT = REPOSITORY / "protos"
STUBS = REPOSITORY / "visavis" / "v1"

PACKAGE_DOCSTRING = '"""Generated from protos/visavis/v1 by `make protos`: never edited by hand."""\n'

# mypy-protobuf gives handlers a context of iterators and lets a streaming handler only be a generator. grpc.aio writes
# single messages, and a handler may also be a coroutine that awaits `context.write`, which is what ours are.
_CONTEXT = re.compile(r"_aio\.ServicerContext\[.+\]")
_WRAPPED = re.compile(r"_abc\.(?:AsyncIterator|Awaitable)\[([\w.]+)\]")
_STREAM_RETURN = re.compile(r"\) -> (_abc\.AsyncIterator\[[\w.]+\]):")


def generate_stubs() -> dict[str, str]:
    """Returns the text of every generated file by its name.

    Raises:
        RuntimeError: protoc refuses a proto; the message is protoc's.
    """
    protos = sorted(PROTO_ROOT.glob("visavis/v1/*.proto"))
    services = [proto for proto in protos if re.search(r"^service ", proto.read_text(), re.MULTILINE)]
    with tempfile.TemporaryDirectory() as folder:
        _run_protoc(protos, [f"--python_out={folder}", _plugin("mypy"), f"--mypy_out=quiet:{folder}"])
        _run_protoc(
            services,
            [f"--grpc_python_out={folder}", _plugin("mypy_grpc"), f"--mypy_grpc_out=quiet,only_async:{folder}"],
        )
        texts = {path.name: _correct(path) for path in Path(folder, "visavis", "v1").iterdir()}
    return {"__init__.py": PACKAGE_DOCSTRING, **texts}


def stale_stubs() -> list[str]:
    """Returns the names of files in visavis/v1 that differ from what the protos give: changed, missing or left over."""
    wanted = generate_stubs()
    present = {path.name: path.read_text() for path in STUBS.iterdir() if path.suffix in {".py", ".pyi"}}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def write_stubs() -> None:
    """Replaces the content of visavis/v1 by what the protos give."""
    wanted = generate_stubs()
    STUBS.mkdir(parents=True, exist_ok=True)
    for path in STUBS.glob("*.py*"):
        if path.is_file() and path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (STUBS / name).write_text(text)


def _run_protoc(protos: list[Path], options: list[str]) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO_ROOT}", *options]
    outcome = subprocess.run([*command, *map(str, protos)], capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        raise RuntimeError(f"protoc failed:\n{outcome.stderr}")


def _plugin(name: str) -> str:
    """The plugin that stands beside the running interpreter, so that no PATH decides the version."""
    return f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}"


def _correct(path: Path) -> str:
    text = path.read_text()
    if not path.name.endswith("_pb2_grpc.pyi"):
        return text
    text = _CONTEXT.sub(lambda match: _WRAPPED.sub(r"\1", match[0]), text)
    return _STREAM_RETURN.sub(r") -> \1 | _abc.Awaitable[None]:", text)


def main() -> int:
    """Writes the stubs, or with `--check` names the stale ones and returns 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when visavis/v1 is not current")
    if not parser.parse_args().check:
        write_stubs()
        return 0
    stale = stale_stubs()
    if stale:
        print(f"visavis/v1 is not what the protos give: {', '.join(stale)}. Run `make protos`.", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
