"""The names that cargo gives to registries' folders: known pairs, from cargos old and new."""

import pytest

from mirror.core.cargo_folders import registry_folders


@pytest.mark.parametrize(
    ("source", "folders"),
    [
        (
            "sparse+https://index.crates.io/",
            {"index.crates.io-1949cf8c6b5b557f", "index.crates.io-6f17d22bba15001f"},
        ),
        (
            "registry+https://github.com/rust-lang/crates.io-index",
            {
                "github.com-25cdd57fae9f0462",
                "github.com-1ecc6299db9ec823",
                "github.com-25cdd57fae9f0462-shallow",
                "github.com-1ecc6299db9ec823-shallow",
            },
        ),
    ],
)
def test_the_folders_of_crates_io_are_those_that_everybody_has(source, folders):
    assert registry_folders(source) == folders


def test_a_port_and_a_path_count_and_the_last_slash_does_not():
    with_slash = registry_folders("sparse+http://127.0.0.1:9471/index/")
    assert "127.0.0.1-ec73f56fd6659164" in with_slash
    assert registry_folders("sparse+http://127.0.0.1:9471/index") == with_slash
    assert not with_slash & registry_folders("sparse+http://127.0.0.1:9472/index/")


def test_a_bare_address_is_that_of_a_git_repository_however_it_is_written():
    ours = registry_folders("registry+https://github.com/rust-lang/crates.io-index")
    assert registry_folders("https://github.com/Rust-Lang/crates.io-index.git") == ours


def test_what_is_no_address_has_no_folder():
    assert registry_folders("corp") == frozenset()
    for hostile in ("sparse+http://[", "sparse+http://a\0b/", f"sparse+http://{'a' * 300}/"):
        assert registry_folders(hostile) == frozenset()


def test_a_sparse_host_keeps_its_letters_and_that_of_a_repository_does_not():
    # The first is what a real cargo made: tests/client/test_cargo_folders.py.
    (letters,) = {each.rpartition("-")[0] for each in registry_folders("sparse+http://LOCALHOST/")}
    assert letters == "LOCALHOST"
    assert registry_folders("HTTPS://u@Example.org/x") == registry_folders(
        "https://u@example.org/x"
    )
    assert any(each.startswith("[::1]-") for each in registry_folders("sparse+http://[::1]:8/x/"))
