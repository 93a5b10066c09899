"""What the pages for operators tell them to do works as it stands."""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench.deployment_harness import Deployment, free_port

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

DEMO = Path(__file__).parents[2] / "examples" / "deploy" / "demo.sh"


def test_demo_script_ends_with_what_a_device_has_spent_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    ports = {"SERVER_PORT": str(free_port()), "AUTHORITY_PORT": str(free_port())}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [DEMO, tmp_path / "demo"],
        env={**os.environ, **ports, "PATH": path, "ROUNDS": "2"},
        capture_output=True,
        text=True,
        timeout=200,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr
    for told in ("round 2/2", "3/3 ok", "chain ok", "chain complete"):
        assert told in done.stdout
    assert (tmp_path / "demo/server/runs/demo/model.safetensors").exists()
    assert not processes_that_name(tmp_path)


def processes_that_name(folder: Path) -> list[str]:
    """Command lines of running processes with this folder in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        if str(folder) in words:
            found.append(words)
    return found


@pytest.fixture
def through_nginx(tmp_path: Path) -> Iterator[tuple[Deployment, int]]:
    """A device that reaches its server through nginx, as `calyx server init` configures it."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    deployment = Deployment(
        tmp_path, 1, is_sealed=False, device_server=f"127.0.0.1:{port}", public_port=port
    )
    policy = deployment.device(0).policy_path  # there are no sums of one device, so none
    policy.write_text(policy.read_text().replace("required = true", "required = false"))
    config = deployment.folder.proxy_path
    text = config.read_text()
    assert f"listen {port} ssl;" in text
    config.write_text(text.replace(f"listen {port} ssl;", f"listen 127.0.0.1:{port} ssl;"))
    # It answers 502 until the server is there; devices wait for that.
    with (tmp_path / "nginx.out").open("wb") as output:
        nginx = subprocess.Popen(
            ["nginx", "-e", "stderr", "-c", config, "-g", "daemon off;"], stderr=output
        )
    try:
        with deployment:
            yield deployment, port
    finally:
        nginx.terminate()
        nginx.wait(20)


def test_nginx_lets_devices_in_and_nobody_else(through_nginx: tuple[Deployment, int]) -> None:
    deployment, port = through_nginx
    deployment.submit("proxied", "training.rounds=1", "federation.min_replies=1")
    ended = deployment.wait("proxied")
    assert ended.state == "completed", ended.error
    (told,) = deployment.events("proxied", "round")
    assert told["ok"] == 1

    trusted = ssl.create_default_context(cafile=deployment.folder.ca_path)

    def status(method: str, path: str) -> int:
        with closing(
            http.client.HTTPSConnection("127.0.0.1", port, context=trusted, timeout=20)
        ) as connection:
            connection.request(method, path, body=b"" if method == "POST" else None)
            return connection.getresponse().status

    def announced(path: str, length: int) -> int:
        """What is said to a call before any of its body was sent."""
        with closing(
            http.client.HTTPSConnection("127.0.0.1", port, context=trusted, timeout=20)
        ) as connection:
            connection.putrequest("POST", path)
            connection.putheader("content-length", str(length))
            connection.endheaders()
            return connection.getresponse().status

    assert status("GET", "/v1/fleet/push-object") == 403
    for path in ("/", "/v1/control/start-run", "/v1/serverappio/pull-app-inputs"):
        assert status("POST", path) == 404, path
    # Not signed by a registered key: the server itself refuses.
    assert status("POST", "/v1/fleet/pull-messages") == 401
    # A path that no device calls, and more than a call needs.
    for path in ("/v1/fleet/get-fab", "/v1/fleet/register-node", "/v1/fleet/", "/health"):
        assert status("POST", path) == 404, path
    longest = {"pull-messages": 2**16, "push-messages": 2**20, "push-object": 2**24}
    for name, most in longest.items():
        assert announced(f"/v1/fleet/{name}", most + 1) == 413, name
    # The server's own answer, to the head alone.
    for name in ("push-messages", "push-object"):
        assert announced(f"/v1/fleet/{name}", longest[name]) == 401, name
