"""The real nginx with deploy/nginx.conf on a web root."""

from pathlib import Path

from tests.support.nginx import free_port, running_nginx

CONF = Path(__file__).parents[2] / "deploy/nginx.conf"


def deployed_nginx(work, www):
    """Return a context that gives the URL; `work` is a folder for nginx's own files."""
    port = free_port()
    server = CONF.read_text()
    yours = {"/var/lib/crateseal/www": str(www), "127.0.0.1:8480": f"127.0.0.1:{port}"}
    for given, chosen in yours.items():
        assert given in server
        server = server.replace(given, chosen)
    return running_nginx(work, port, server)
