"""The manifests, put together as `kubectl apply -k` does it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from identity import callers, policy
from tests.deploy.files import DEPLOY, Document, documents, settings, write_secrets

MANIFESTS = DEPLOY / "kubernetes"
# What docs/operations.md promises: the first release with `sleep` before the end of a container
# switched on.
OLDEST = "1.30"

SERVICE_STOPS_WITHIN = 10  # seconds

build = next(
    (
        [*command]
        for command in (("kustomize", "build"), ("kubectl", "kustomize"))
        if shutil.which(command[0])
    ),
    None,
)
# CI installs it and says so: there it must not be missing.
pytestmark = pytest.mark.skipif(
    build is None and "REQUIRE_KUSTOMIZE" not in os.environ,
    reason="neither kustomize nor kubectl is installed",
)


@cache
def built(name: str) -> tuple[Document, ...]:
    assert build is not None
    done = subprocess.run([*build, MANIFESTS / name], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return tuple(documents(done.stdout))


def one(name: str, kind: str) -> Any:  # noqa: ANN401 - YAML
    (found,) = (each for each in built(name) if each["kind"] == kind)
    return found


def pod(name: str) -> Any:  # noqa: ANN401
    """What the pods of the Deployment or the Job are made of."""
    return one(name, "Job" if name == "migrate" else "Deployment")["spec"]["template"]


def container(name: str) -> Any:  # noqa: ANN401
    (found,) = pod(name)["spec"]["containers"]
    return found


def environment(name: str) -> dict[str, str]:
    """The variables that the container is started with."""
    maps = {each["metadata"]["name"]: each for each in built(name) if each["kind"] == "ConfigMap"}
    found: dict[str, str] = {}
    for source in container(name).get("envFrom", ()):
        found |= maps[source["configMapRef"]["name"]]["data"]
    return found | {each["name"]: each["value"] for each in container(name).get("env", ())}


def violation(document: Document, version: str) -> str:
    """What the schema of that version says against it; empty if nothing."""
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return ""


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


every = pytest.mark.parametrize("name", ["tls", "mesh", "migrate"])
serving = pytest.mark.parametrize("name", ["tls", "mesh"])


@every
@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_manifests_hold_to_the_api(name: str, version: str) -> None:
    assert built(name)
    for document in built(name):
        assert not violation(document, version)


def test_the_namespace_holds_to_the_api() -> None:
    (namespace,) = documents((MANIFESTS / "namespace.yaml").read_text())
    assert not violation(namespace, OLDEST)
    for name in ("tls", "mesh", "migrate"):
        for document in built(name):
            assert document["metadata"]["namespace"] == namespace["metadata"]["name"]


@every
def test_the_service_takes_its_settings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_secrets(tmp_path / "identity")
    given = {
        variable: value.replace("/run/secrets", str(tmp_path)) if "_FILE" in variable else value
        for variable, value in environment(name).items()
    }
    found = settings(monkeypatch, given)
    assert not found.is_embedded
    if name != "migrate":
        ports = {each["name"]: each["containerPort"] for each in container(name)["ports"]}
        assert found.metrics_listen
        assert ports == {"grpc": found.listen.port, "metrics": found.metrics_listen.port}
        assert (found.tls_client_ca is not None) == (name == "tls")


@every
def test_files_that_settings_name_are_mounted(name: str) -> None:
    mounts = {each["name"]: each["mountPath"] for each in container(name)["volumeMounts"]}
    assert mounts.keys() == {each["name"] for each in pod(name)["spec"]["volumes"]}
    for value in environment(name).values():
        if value.startswith("/"):
            assert str(Path(value).parent) in mounts.values()


def test_the_callers_file_is_one(tmp_path: Path) -> None:
    maps = [each for each in built("tls") if each["kind"] == "ConfigMap"]
    (written,) = (each["data"]["callers.toml"] for each in maps if "callers.toml" in each["data"])
    path = tmp_path / "callers.toml"
    path.write_text(written)
    assert callers.load(path, frozenset(policy.RULES))


@every
def test_pods_can_do_nothing_that_they_need_not(name: str) -> None:
    spec, confined = pod(name)["spec"], container(name)["securityContext"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert confined == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@every
def test_no_service_beside_it_can_stop_the_start(name: str) -> None:
    assert pod(name)["spec"]["enableServiceLinks"] is False


def probes(name: str) -> Iterator[tuple[str, Document]]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        yield kind, container(name)[kind]


@serving
def test_probes_ask_where_something_answers(name: str) -> None:
    ports = {each["name"]: each["containerPort"] for each in container(name)["ports"]}
    for kind, probe in probes(name):
        if "grpc" in probe:
            assert probe["grpc"] == {"port": ports["grpc"]}
            # It would ask in plaintext, and without a certificate.
            assert name == "mesh"
            # It follows the database: a pod must not be restarted because that is away.
            assert kind != "livenessProbe"
        else:
            path = "/livez" if kind == "livenessProbe" else "/readyz"
            assert probe["httpGet"] == {"path": path, "port": "metrics"}


@serving
def test_calls_that_have_begun_may_end(name: str) -> None:
    pause = container(name)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(name)["spec"]["terminationGracePeriodSeconds"] > pause + SERVICE_STOPS_WITHIN


@serving
def test_what_stands_around_the_pods_finds_them(name: str) -> None:
    labels = pod(name)["metadata"]["labels"]
    deployment = one(name, "Deployment")
    assert selects(deployment["spec"]["selector"]["matchLabels"], labels)
    assert selects(one(name, "Service")["spec"]["selector"], labels)
    for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert selects(one(name, kind)["spec"][key]["matchLabels"], labels)
    for spread in pod(name)["spec"]["topologySpreadConstraints"]:
        assert selects(spread["labelSelector"]["matchLabels"], labels)
    scaled = one(name, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert scaled["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]  # each rollout would undo what was scaled
    assert (
        pod(name)["spec"]["serviceAccountName"] == one(name, "ServiceAccount")["metadata"]["name"]
    )


def test_clients_find_pods_and_meshes_find_one_address() -> None:
    assert one("tls", "Service")["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in one("mesh", "Service")["spec"]


def test_a_migration_goes_through_the_network_but_gets_no_calls() -> None:
    labels = pod("migrate")["metadata"]["labels"]
    policy_of_the_network = one("tls", "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert selects(policy_of_the_network, labels)
    assert not selects(one("tls", "Service")["spec"]["selector"], labels)
    assert container("migrate")["image"] == container("tls")["image"]
