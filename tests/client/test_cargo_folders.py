"""The names of registries' folders, against a real cargo."""

import subprocess

import pytest

from mirror.core.cargo_folders import registry_folders
from tests.support.crates import crate_bytes, index_file
from tests.support.laptop import Laptop, package
from tests.support.mirror_folder import answering, from_folder


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "u@LocalHost", "127.0.0.1"])
def test_a_real_cargo_calls_a_registrys_folder_what_we_say(tmp_path, host):
    www = tmp_path / "www"
    (www / "Index/aa/aa").mkdir(parents=True)
    (www / "Index/aa/aa/aaaa").write_bytes(index_file("aaaa", "1.0.0"))
    (www / "dl").mkdir()
    (www / "dl/aaaa").write_bytes(crate_bytes("aaaa", "1.0.0"))
    laptop = Laptop(tmp_path)
    project = package(tmp_path / "work", 'aaaa = { version = "1", registry = "other" }')
    with answering(from_folder(www)) as url:
        (www / "Index/config.json").write_text(f'{{"dl": "{url}/dl/{{crate}}"}}')
        index = f"sparse+{url.replace('127.0.0.1', host)}/Index/"
        variables = laptop.variables(CARGO_REGISTRIES_OTHER_INDEX=index)
        subprocess.run(["cargo", "fetch"], cwd=project, env=variables, check=True)
    (made,) = (each.name for each in (laptop.users / "registry/cache").iterdir())
    assert made in registry_folders(index)
