"""The program, run on the test's database."""

import pytest
from sqlalchemy.engine import URL

from identity import cli
from tests.program import Answer, Command, use


@pytest.fixture
def command(
    database_url: URL, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `identity outbox` on the test's database. No secret key is set."""
    use(monkeypatch, database_url)

    def run(*arguments: str) -> Answer:
        capsys.readouterr()  # what the test's own deliverers log
        code = cli.main(["outbox", *arguments])
        return Answer(code, *capsys.readouterr())

    return run
