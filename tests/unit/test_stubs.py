"""What an import costs: clients load stubs only, and a start loads no tool."""

import json
import subprocess
import sys

import pytest

_PROGRAM = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def loaded_by(*modules: str) -> set[str]:
    """All modules that a fresh interpreter has loaded after importing these."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *modules], capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(ended.stdout)
    assert set(modules) <= set(found)
    return set(found)


@pytest.mark.parametrize(
    "module", ["identity", "identity.v1.identity_pb2_grpc", "identity.v1.delivery_pb2_grpc"]
)
def test_a_client_that_imports_the_stubs_loads_nothing_of_the_service(module: str) -> None:
    loaded = loaded_by(module)
    service = {"sqlalchemy", "pydantic", "pydantic_settings", "alembic", "bcrypt", "structlog"}
    assert loaded & service == set()
    ours = {name for name in loaded if name.partition(".")[0] == "identity"}
    stubs = module.removesuffix("_grpc")
    assert ours <= {"identity", "identity.v1", stubs, f"{stubs}_grpc"}


def test_the_server_starts_without_migrations_and_without_the_drivers_it_may_not_need() -> None:
    assert loaded_by("identity.server") & {"alembic", "boto3", "psycopg"} == set()


def test_the_program_shows_its_help_without_loading_the_server() -> None:
    assert loaded_by("identity.cli") & {"identity.server", "grpc", "alembic", "bcrypt"} == set()
