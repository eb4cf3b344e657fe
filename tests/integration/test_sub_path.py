"""`--public-url` with a sub-path, behind a real nginx that strips it: as companies put it up."""

from html import unescape

import httpx
import pytest
from tuf.ngclient import Updater

from tests.conftest import need
from tests.fakes.upstream import FakeUpstream
from tests.support.cargo import cargo, make_project, use_mirror
from tests.support.crates import crate_bytes, index_file
from tests.support.nginx import free_port, running_nginx
from tests.support.processes import Up, crateseal

SERVER = """
  server {{
    listen 127.0.0.1:{port};
    merge_slashes off;
    location /rust/ {{
      proxy_pass http://127.0.0.1:{behind}/;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_read_timeout 30s;
    }}
  }}
"""
BUILD = "1.0.0+build.7"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """The running `up`, and the URL that clients know."""
    need("nginx")
    here = tmp_path_factory.mktemp("here")
    port, behind = free_port(), free_port()
    public = f"http://127.0.0.1:{port}/rust"
    with FakeUpstream(here / "upstream") as upstream:
        upstream.put("/index/fi/ne/fine", index_file("fine", "1.0.0", deps=("other",)))
        upstream.put("/crates/fine/fine-1.0.0.crate", crate_bytes("fine", "1.0.0"))
        upstream.put("/index/ot/he/other", index_file("other", BUILD))
        upstream.put(f"/crates/other/other-{BUILD}.crate", crate_bytes("other", BUILD))
        options = ("--port", behind, "--public-url", f"{public}/", "--trusted-proxies", "127.0.0.1")
        up = Up("--upstream", upstream.source, *options, cwd=here)
        server = SERVER.format(port=port, behind=behind)
        try:
            with running_nginx(here, port, server):
                yield up.wait_until_ready(), public
        finally:
            up.end()


def test_what_a_person_reads_leads_through_the_proxy(mirror):
    up, public = mirror
    assert up.url == public
    assert f'registry = "sparse+{public}/index/"' in up.out
    config = httpx.get(f"{public}/index/config.json").json()
    assert config["dl"] == f"{public}/crates/{{crate}}/{{crate}}-{{version}}.crate"
    page = unescape(httpx.get(f"{public}/").text)
    assert f'registry = "sparse+{public}/index/"' in page
    links = [part.partition('"')[0] for part in page.split('href="')[1:]]
    ours = [link for link in links if not link.startswith("https://theupdateframework.io")]
    assert ours
    for link in ours:
        assert httpx.get(link).status_code == 200, link
    status = httpx.get(f"{public}/api/v1/status").json()
    assert status["public_url"] == public
    written = (up.data / "www/index/config.json").read_text()
    assert f"{public}/crates/" in written


def test_what_a_404_names_is_where_clients_find_it(mirror):
    _, public = mirror
    answer = httpx.get(f"{public}/index/serde")
    assert "did you mean /rust/index/se/rd/serde?" in answer.text


def test_cargo_fetches_through_the_proxy(mirror, tmp_path):
    need("cargo")
    _, public = mirror
    project = make_project(tmp_path / "project", {"fine": "1"})
    use_mirror(project, public)
    found = cargo(project, tmp_path / "home", "fetch")
    assert found.returncode == 0, found.stderr
    lock = (project / "Cargo.lock").read_text()
    assert f'version = "{BUILD}"' in lock
    found = cargo(project, tmp_path / "home", "build", "--offline")
    assert found.returncode == 0, found.stderr


def test_a_stock_updater_proves_through_the_proxy(mirror, tmp_path):
    _, public = mirror
    root = httpx.get(f"{public}/tuf/metadata/1.root.json").content
    assert httpx.get(f"{public}/index/fi/ne/fine").status_code == 200
    client = Updater(
        str(tmp_path),
        f"{public}/tuf/metadata/",
        target_dir=str(tmp_path),
        target_base_url=f"{public}/tuf/targets/",
        bootstrap=root,
    )
    info = client.get_targetinfo("index/fi/ne/fine")
    with open(client.download_target(info), "rb") as file:
        assert file.read() == httpx.get(f"{public}/index/fi/ne/fine").content


def test_a_path_with_a_plus_survives_the_proxy(mirror):
    _, public = mirror
    for version in (BUILD, BUILD.replace("+", "%2B")):
        answer = httpx.get(f"{public}/crates/other/other-{version}.crate")
        assert (answer.status_code, answer.content) == (200, crate_bytes("other", BUILD))


def test_our_own_client_proves_a_lock_through_the_proxy(mirror, tmp_path):
    need("cargo")
    _, public = mirror
    project = make_project(tmp_path / "project", {"fine": "1"})
    use_mirror(project, public)
    assert cargo(project, tmp_path / "home", "generate-lockfile").returncode == 0
    root = httpx.get(f"{public}/api/v1/status").json()["root_sha256"]
    options = ("--mirror", public, "--root-sha256", root, "--lock", "Cargo.lock")
    found = crateseal("verify", *options, cwd=project)
    assert found.returncode == 0, found.stdout + found.stderr
