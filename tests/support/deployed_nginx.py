"""The real nginx with deploy/nginx.conf on a web root."""

import re
from pathlib import Path

from tests.support.nginx import free_port, running_nginx

CONF = Path(__file__).parents[2] / "deploy/nginx.conf"
_OPTIONAL = re.compile(r"^( *)#(?=proxy_set_header|location|error_page)", re.MULTILINE)


def deployed_nginx(work, www, *, behind=None):
    """Return a context that gives the URL; `work` is a folder for nginx's own files.

    With `behind`, the port of a `crateseal serve`, the lines for it are uncommented.
    """
    port = free_port()
    server = CONF.read_text()
    yours = {"/var/lib/crateseal/www": str(www), "127.0.0.1:8480": f"127.0.0.1:{port}"}
    if behind is not None:
        server = _OPTIONAL.sub(r"\1", server)
        yours |= {"    location / { return 404; }": "", "127.0.0.1:8470": f"127.0.0.1:{behind}"}
    for given, chosen in yours.items():
        assert given in server
        server = server.replace(given, chosen)
    return running_nginx(work, port, server)
