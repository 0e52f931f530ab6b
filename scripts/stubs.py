"""Generates the Python stubs from protos/ into identity/v1/; with --check only compares."""

import argparse
import filecmp
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"


def generate(into: Path) -> list[Path]:
    """Writes the stubs below a folder; returns their paths relative to it."""
    arguments = [
        "protoc",
        f"--proto_path={PROTOS}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={into}",
        f"--pyi_out={into}",
        f"--grpc_python_out={into}",
        *(str(proto) for proto in sorted(PROTOS.rglob("*.proto"))),
    ]
    if protoc.main(arguments) != 0:
        sys.exit("stubs: protoc failed")
    return sorted(
        (proto.relative_to(PROTOS).with_name(f"{proto.stem}{ending}"))
        for proto in PROTOS.rglob("*.proto")
        for ending in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")
    )


def committed() -> list[Path]:
    """The stubs in the tree."""
    return sorted(
        path.relative_to(ROOT)
        for path in (ROOT / "identity").rglob("*_pb2*")
        if path.suffix in {".py", ".pyi"}
    )


def drifted() -> list[str]:
    """The stubs that differ from what the protos give, are missing, or have no proto any more."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = generate(Path(folder))
        return [
            str(path)
            for path in sorted({*fresh, *committed()})
            if path not in fresh
            or not (ROOT / path).exists()
            or not filecmp.cmp(ROOT / path, Path(folder) / path, shallow=False)
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail on drift")
    if not parser.parse_args().check:
        fresh = generate(ROOT)
        for orphan in set(committed()).difference(fresh):  # its proto is gone
            (ROOT / orphan).unlink()
        return 0
    if changed := drifted():
        print("stubs: run `make proto`; drifted: " + ", ".join(changed), file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
