"""A real nginx on loopback over one folder, for as long as a `with` block lasts."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

_CONF = """
worker_processes 1; daemon off; pid {work}/pid; error_log {work}/error.log; {user}
events {{ worker_connections 2048; }}
http {{
  access_log off; etag on; types {{ }} default_type application/octet-stream;
  keepalive_requests 10000000; sendfile on; tcp_nodelay on;
  client_body_temp_path {work}; proxy_temp_path {work}; fastcgi_temp_path {work};
  uwsgi_temp_path {work}; scgi_temp_path {work};
  server {{ listen 127.0.0.1:{port} backlog=1024; root {folder}; }}
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def nginx_over(folder):
    """Yield `http://127.0.0.1:PORT`."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise FileNotFoundError("nginx is not installed (Debian package nginx-light)")
    work = Path(tempfile.mkdtemp(prefix="nginx-"))
    port = free_port()
    conf = work / "nginx.conf"
    # As root its workers would be nobody, who may not enter a private folder.
    user = "user root;" if os.geteuid() == 0 else ""
    conf.write_text(_CONF.format(work=work, port=port, folder=folder, user=user))
    process = subprocess.Popen([program, "-c", conf, "-e", work / "error.log"])
    try:
        _wait(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(work, ignore_errors=True)


def _wait(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError("nginx did not start")
