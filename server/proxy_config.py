"""A reverse proxy in front of the server: only the Fleet API may be reached from outside.

The server answers four kinds of callers on one port. Operators and ServerApps are on this machine;
what devices need begins with ``/v1/fleet/``, and each of its calls is signed by a registered key.
"""

from __future__ import annotations

from server.folder import ServerFolder

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

  server {{
    listen {public_port} ssl;
    ssl_certificate     {certificate};
    ssl_certificate_key {private_key};
    ssl_protocols TLSv1.2 TLSv1.3;
    # Flower sends objects in parts of 5 MB.
    client_max_body_size 16m;
    limit_conn devices 64;

    location /v1/fleet/ {{
      limit_except POST {{ deny all; }}
      proxy_pass https://{address};
      proxy_ssl_trusted_certificate {ca};
      proxy_ssl_verify on;
      proxy_ssl_name localhost;
      proxy_ssl_server_name on;
      # Updates pass through as they come, and are never written to the proxy's disk.
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_read_timeout 120s;
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
    return _NGINX.format(
        path=folder.proxy_path,
        state=folder.state_dir,
        logs=folder.log_dir,
        public_port=public_port,
        certificate=folder.certificate_path,
        private_key=folder.private_key_path,
        ca=folder.ca_path,
        address=folder.local_address,
    )
