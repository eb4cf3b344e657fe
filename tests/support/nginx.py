"""A real nginx on loopback, for as long as a `with` block lasts."""

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import wait_until

_WHOLE = """
worker_processes 1; daemon off; pid {work}/pid; error_log {work}/error.log warn; {user}
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {work}; proxy_temp_path {work}; fastcgi_temp_path {work};
  uwsgi_temp_path {work}; scgi_temp_path {work};
  {server}
}}
"""
_FOLDER = """
  etag on; types {{ }} default_type application/octet-stream;
  keepalive_requests 10000000; sendfile on; tcp_nodelay on;
  server {{ listen 127.0.0.1:{port} backlog=1024; root {folder}; }}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_nginx(work, port, server):
    """Yield the URL of an nginx that has this in its `http` block; its own files go to `work`."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise FileNotFoundError("nginx is not installed (Debian package nginx-light)")
    # As root its workers would be nobody, who may not enter a private folder.
    user = "user root;" if os.geteuid() == 0 else ""
    conf = work / "nginx.conf"
    conf.write_text(_WHOLE.format(work=work, user=user, server=server))
    with subprocess.Popen([program, "-e", work / "error.log", "-c", conf]) as process:
        try:
            wait_until(lambda: _listens(port) or process.poll() is not None)
            assert process.poll() is None, (work / "error.log").read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextmanager
def nginx_over(folder):
    """Yield the URL of an nginx that serves the files of a folder."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="nginx-", ignore_cleanup_errors=True) as work,
        running_nginx(Path(work), port, _FOLDER.format(port=port, folder=folder)) as url,
    ):
        yield url


def _listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
