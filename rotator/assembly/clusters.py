"""The API server of Kubernetes, as it is configured or as any Pod finds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rotator.assembly.plan import Plan
from rotator.core.errors import Misconfigured
from rotator.core.ports import Http
from rotator.drivers import kubernetes


def of(plan: Plan, client: Callable[[Path | None], Http]) -> kubernetes.Cluster:
    """Raises Misconfigured where this is no Pod and nothing else is configured."""
    rules, environ = plan.settings.kubernetes, plan.environ
    url = rules.api
    if url is None:
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise Misconfigured(
                "a target is a Secret, and this is no Pod of a cluster", mend="set kubernetes.api and token_file"
            )
        url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    ours = kubernetes.ACCOUNT / "ca.crt"
    ca_file = rules.ca_file or (ours if rules.api is None else None)
    token_file = rules.token_file or kubernetes.ACCOUNT / "token"
    return kubernetes.Cluster(client(ca_file), url, token_file, owner=_owner(plan))


def place(plan: Plan, secret: str) -> tuple[str, str]:
    """(namespace, name); the namespace is the configured one, else the Pod's own. Raises Misconfigured."""
    namespace, slash, name = secret.rpartition("/")
    if slash:
        return namespace, name
    if plan.settings.kubernetes.namespace:
        return plan.settings.kubernetes.namespace, name
    try:
        return (kubernetes.ACCOUNT / "namespace").read_text().strip(), name
    except OSError:
        raise Misconfigured(
            f'the namespace of the Secret "{name}" is not known', mend='write "NAMESPACE/NAME" or kubernetes.namespace'
        ) from None


def _owner(plan: Plan) -> kubernetes.Owner | None:
    if plan.settings.kubernetes.owner is None:
        return None
    name, uid = plan.environ.get("POD_NAME"), plan.environ.get("POD_UID")
    if not name or not uid:
        raise Misconfigured(
            'kubernetes.owner = "pod" needs $POD_NAME and $POD_UID', mend="set both from fieldRef (downward API)"
        )
    return kubernetes.Owner(name, uid)
