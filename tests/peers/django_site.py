"""A whole site around django-oauth-toolkit, run as a process of its own by `tests.peers.django_oauth`.

Takes one JSON object as its argument, answers with one line of JSON once it listens, and ends with its stdin.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

THREADS = 8
LEDGER = "exchanges.jsonl"
# While a file of this name stands there, no token request is answered.
GATE = "gate"

_numbers = count(1)
_ledger: int = -1
_hold_seconds = 0.0
_gate = Path()


def configure(folder: Path, wishes: dict[str, Any]) -> None:
    import django
    from django.conf import settings

    apps = ["django.contrib.contenttypes", "django.contrib.auth", "oauth2_provider"]
    settings.configure(
        SECRET_KEY=secrets.token_hex(32),
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=apps,
        # Tables straight from the models: the migrations of three apps would take seconds.
        MIGRATION_MODULES={name.rpartition(".")[2]: None for name in apps},
        USE_TZ=True,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": folder / "site.sqlite3",
                "CONN_MAX_AGE": None,
                "OPTIONS": {
                    # A transaction that begins by reading cannot wait for the lock it later wants: "database is
                    # locked" at once, whatever the timeout.
                    "transaction_mode": "IMMEDIATE",
                    "timeout": 20,
                    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF",
                },
            }
        },
        # The default would cost 0.1 s of processor time for each secret and each password.
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        OAUTH2_PROVIDER={
            "ACCESS_TOKEN_EXPIRE_SECONDS": wishes["access_seconds"],
            "ROTATE_REFRESH_TOKEN": True,
            "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": wishes["grace"],
            "REFRESH_TOKEN_REUSE_PROTECTION": wishes["reuse_protection"],
        },
    )
    django.setup()


def enrol() -> dict[str, str]:
    """Make the tables, a confidential client for the password grant, and a user; return their secrets."""
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from oauth2_provider.models import get_application_model

    call_command("migrate", run_syncdb=True, verbosity=0)
    account = {
        "client_id": secrets.token_hex(16),
        "client_secret": secrets.token_hex(32),
        "username": "anna",
        "password": secrets.token_hex(16),
    }
    user = get_user_model().objects.create_user(account["username"], password=account["password"])
    get_application_model().objects.create(
        name="rotator",
        user=user,
        client_type="confidential",
        authorization_grant_type="password",
        client_id=account["client_id"],
        client_secret=account["client_secret"],
    )
    return account


def me(request: Any) -> Any:
    """200 for a good Bearer token, else 401; the toolkit's own view would answer 403."""
    from django.http import HttpResponse, JsonResponse
    from oauth2_provider.oauth2_backends import get_oauthlib_core

    good, grant = get_oauthlib_core().verify_request(request, scopes=[])
    if good:
        return JsonResponse({"username": grant.user.username})
    return HttpResponse(status=401, headers={"WWW-Authenticate": 'Bearer realm="api"'})


def token(request: Any) -> Any:
    """The toolkit's own token endpoint, written down before and after; the answer is held back for a while once the
    toolkit has committed it, which is when a client that dies loses a refresh token."""
    from oauth2_provider.views import TokenView

    number = next(_numbers)
    presented = request.POST.get("refresh_token", "")
    _note(number=number, kind=request.POST.get("grant_type", ""), refresh_token=presented, asked_at=time.time())
    response = TokenView.as_view()(request)
    access = json.loads(response.content).get("access_token", "") if response.status_code == 200 else ""
    time.sleep(_hold_seconds)
    while _gate.exists():
        time.sleep(0.005)
    _note(number=number, status=response.status_code, access_token=access, answered_at=time.time())
    return response


def _note(**line: Any) -> None:
    # One write to a file opened for appending: lines of several threads do not mix.
    os.write(_ledger, json.dumps(line).encode() + b"\n")


def __getattr__(name: str) -> Any:
    # This module is also the URL configuration; the toolkit's views can be imported only after the set-up.
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt

    return [path("o/token/", csrf_exempt(token)), path("api/me", csrf_exempt(me))]


def main(argument: str) -> None:
    global _ledger, _gate, _hold_seconds
    wishes = json.loads(argument)
    _ledger = os.open(Path(wishes["folder"], LEDGER), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    _gate = Path(wishes["folder"], GATE)
    _hold_seconds = wishes["hold_seconds"]
    configure(Path(wishes["folder"]), wishes)
    account = enrol()

    import waitress
    from django.core.wsgi import get_wsgi_application

    server = waitress.create_server(get_wsgi_application(), host="127.0.0.1", port=0, threads=THREADS)
    print(json.dumps({"port": server.effective_port, **account}), flush=True)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    server.run()


def _end_with_stdin() -> None:
    # So that a killed test leaves no server behind.
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
