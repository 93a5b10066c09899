"""A reverse proxy in front of the server: only the Fleet API may be reached from outside.

The server answers four kinds of callers on one port. Operators and ServerApps are on this machine;
what devices need begins with ``/v1/fleet/``, and each of its calls is signed by a registered key
(`calyx.server.deployment.superlink.gate`, which has the same limits).
"""

from __future__ import annotations

from calyx.server.deployment.folder import ServerFolder
from calyx.server.deployment.superlink.gate import Limits
from calyx.shared.protocol.flower.superlink import FLEET_CALLS

_CALLS_PER_S = 200

_NGINX = """\
# Reverse proxy for this server; include it in the http block of nginx, or run it alone:
#   nginx -c {path}
# Devices connect to port {public_port}; everything but the Fleet API is refused here.
pid {state}/nginx.pid;
error_log {logs}/nginx.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {state}/nginx-body;
  proxy_temp_path {state}/nginx-proxy;
  fastcgi_temp_path {state}/nginx-fastcgi;
  uwsgi_temp_path {state}/nginx-uwsgi;
  scgi_temp_path {state}/nginx-scgi;
  limit_conn_zone $binary_remote_addr zone=devices:10m;
  limit_req_zone $binary_remote_addr zone=calls:10m rate={calls_per_s}r/s;

  server {{
    listen {public_port} ssl;
    ssl_certificate     {certificate};
    ssl_certificate_key {private_key};
    ssl_protocols TLSv1.2 TLSv1.3;
    # Who connects has said so in seconds, and has no more to say than a call needs.
    client_header_timeout 10s;
    client_body_timeout 20s;
    send_timeout 30s;
    keepalive_timeout 75s;
    reset_timedout_connection on;
    large_client_header_buffers 4 8k;
    client_max_body_size {other_bytes};
    client_body_buffer_size {other_bytes};
    # Of one address. A device makes some ten calls a second; many may share an address.
    limit_conn devices 64;
    limit_conn_status 503;
    limit_req zone=calls burst={burst} nodelay;
    limit_req_status 503;

    proxy_ssl_trusted_certificate {ca};
    proxy_ssl_verify on;
    proxy_ssl_name localhost;
    proxy_ssl_server_name on;
    # Answers pass through as they come, and nothing is ever written to the proxy's disk.
    proxy_buffering off;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_connect_timeout 5s;
    proxy_read_timeout 120s;

    # Parts of arrays and sealed updates. They pass through as they come: the server sees who sends
    # one before it takes it in.
    location = /v1/fleet/push-object {{
      limit_except POST {{ deny all; }}
      client_max_body_size {object_bytes};
      proxy_request_buffering off;
      proxy_pass https://{address};
    }}
    location = /v1/fleet/push-messages {{
      limit_except POST {{ deny all; }}
      client_max_body_size {tree_bytes};
      proxy_request_buffering off;
      proxy_pass https://{address};
    }}
    # All other calls are small, and are passed on when they are whole.
    location ~ ^/v1/fleet/({calls})$ {{
      limit_except POST {{ deny all; }}
      proxy_pass https://{address};
    }}
    location / {{ return 404; }}
  }}
}}
"""


def nginx_config(folder: ServerFolder, public_port: int) -> str:
    """The text of `nginx.conf`.

    Args:
        folder: a server.
        public_port: where devices connect.
    """
    limits = Limits()
    long_ones = {"push-object", "push-messages"}
    small = sorted({path.rpartition("/")[2] for path in FLEET_CALLS} - long_ones)
    return _NGINX.format(
        calls="|".join(small),
        calls_per_s=_CALLS_PER_S,
        burst=2 * _CALLS_PER_S,
        object_bytes=limits.object_bytes,
        tree_bytes=limits.tree_bytes,
        other_bytes=limits.other_bytes,
        path=folder.proxy_path,
        state=folder.state_dir,
        logs=folder.log_dir,
        public_port=public_port,
        certificate=folder.certificate_path,
        private_key=folder.private_key_path,
        ca=folder.ca_path,
        address=folder.local_address,
    )
