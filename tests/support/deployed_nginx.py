"""The real nginx with deploy/nginx.conf on a web root."""

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

from tests.support.nginx import _wait, free_port

CONF = Path(__file__).parents[2] / "deploy/nginx.conf"


@contextmanager
def deployed_nginx(work, www):
    """Yield the URL; `work` is a folder for nginx's own files."""
    port = free_port()
    file = work / "nginx.conf"
    file.write_text(_whole(work, www, port))
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    with subprocess.Popen([program, "-e", work / "error.log", "-c", file]) as process:
        try:
            _wait(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _whole(work, www, port):
    server = CONF.read_text()
    yours = {"/var/lib/crateseal/www": str(www), "127.0.0.1:8480": f"127.0.0.1:{port}"}
    for given, chosen in yours.items():
        assert given in server
        server = server.replace(given, chosen)
    temporary = "".join(
        f"{kind}_temp_path {work}; "
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # As root its workers would be nobody, who may not enter a test's folder.
    user = "user root;" if os.geteuid() == 0 else ""
    return (
        f"{user} worker_processes 1; daemon off; pid {work}/pid; error_log {work}/error.log warn;\n"
        f"events {{ worker_connections 512; }}\nhttp {{ access_log off; {temporary}\n{server} }}\n"
    )
