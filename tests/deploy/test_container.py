"""The image, as far as it can be looked at without building it. `make check` lints it."""

import re
import shlex
import tomllib

from tests.deploy.files import DEPLOY, ROOT, documents

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
# Continuation lines joined, comments left out.
INSTRUCTIONS = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE))


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", INSTRUCTIONS, re.MULTILINE)


def test_what_is_copied_is_there_and_let_through() -> None:
    everything, *rules = (ROOT / ".dockerignore").read_text().splitlines()[1:]
    assert everything == "*"
    let_through = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        source
        for words in map(shlex.split, instructions("COPY"))
        if not words[0].startswith("--from")
        for source in words[:-1]
    }
    assert copied == let_through
    assert all((ROOT / source).exists() for source in copied)


def test_everything_optional_is_in_the_image() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ].keys() - {"dev", "lint", "test"}
    (installed,) = re.findall(r"\.whl\)\[([a-z,]+)\]", INSTRUCTIONS)
    assert set(installed.split(",")) == extras


def test_the_user_is_the_one_that_the_manifests_name() -> None:
    for path in ("base/deployment.yaml", "migrate/job.yaml"):
        (document,) = documents((DEPLOY / "kubernetes" / path).read_text())
        confined = document["spec"]["template"]["spec"]["securityContext"]
        user = f"{confined['runAsUser']}:{confined['runAsGroup']}"
        assert instructions("USER") == [user]


def test_the_image_holds_no_setting() -> None:
    # One for `serve`, such as the address, would have to be undone for `migrate`.
    assert "IDENTITY_" not in " ".join(instructions("ENV"))
