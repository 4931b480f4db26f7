"""What a guest reads when it starts: seeds for cloud-init, and files added to an initial RAM disk."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from testbed.access.keys import key_pair, lab_key
from testbed.errors import InputError
from testbed.runtimes.seed import added_files, seed_files

if TYPE_CHECKING:
    from pathlib import Path

INTERFACES = [
    {"mac": "00:0d:3a:00:00:01", "address": "10.0.1.4", "prefix_length": 24, "gateway": "10.0.1.1"},
    {"mac": "00:0d:3a:00:00:02", "address": "10.0.2.5", "prefix_length": 26, "gateway": "10.0.2.1"},
]


def config(**seed: Any) -> dict[str, Any]:
    empty = {"user_data": None, "user_data_file": None, "network_config": True, "username": None}
    return {"interfaces": INTERFACES, "seed": empty | seed}


def test_the_network_is_told_as_azure_tells_it() -> None:
    """Addresses by MAC address; the way out and the platform's addresses by the primary network interface only."""
    network = yaml.safe_load(seed_files("lab", "nva1", config())["network-config"])
    assert network["version"] == 2
    first, second = network["ethernets"]["eth0"], network["ethernets"]["eth1"]
    assert first["match"] == {"macaddress": "00:0d:3a:00:00:01"}
    assert first["addresses"] == ["10.0.1.4/24"]
    assert {route["to"] for route in first["routes"]} == {"0.0.0.0/0", "168.63.129.16/32", "169.254.169.254/32"}
    assert {route["via"] for route in first["routes"]} == {"10.0.1.1"}
    assert second["addresses"] == ["10.0.2.5/26"]
    assert "routes" not in second


def test_without_network_config_there_is_none() -> None:
    """A guest that asks by DHCP, or is set up otherwise, is told nothing."""
    assert set(seed_files("lab", "nva1", config(network_config=False))) == {"meta-data", "user-data"}


def test_the_instance_has_a_name_and_an_identity() -> None:
    """Another lab's machine of the same name is another instance to cloud-init."""
    one, other = (json.loads(seed_files(lab, "nva1", config())["meta-data"]) for lab in ("one", "other"))
    assert one["local-hostname"] == "nva1"
    assert one["instance-id"] != other["instance-id"]


@pytest.mark.parametrize("username", ["root", "azureuser"])
def test_the_lab_key_is_let_in(tmp_path: Path, username: str) -> None:
    """For the user of the document; the host key is the lab's as well, so that it stays the same."""
    own, host = lab_key(tmp_path), key_pair(tmp_path, "nva1.host_key")
    text = seed_files("lab", "nva1", config(username=username), own, host)["user-data"]
    assert text.startswith("#cloud-config\n")
    data = yaml.safe_load(text)
    assert data["users"][0]["name"] == username
    assert data["users"][0]["ssh_authorized_keys"] == [own.public]
    assert data.get("disable_root", True) is (username != "root")
    assert data["ssh_keys"]["ed25519_private"] == host.private.read_text()


def test_user_data_of_the_user_stays_as_it_is(tmp_path: Path) -> None:
    """Inline or from a file, nothing is added to it."""
    own = lab_key(tmp_path)
    assert seed_files("lab", "m", config(user_data="#!/bin/sh\n", username="root"), own)["user-data"] == "#!/bin/sh\n"
    (tmp_path / "user-data").write_text("#cloud-config\n{}\n")
    given_file = config(user_data_file=str(tmp_path / "user-data"))
    assert seed_files("lab", "m", given_file)["user-data"] == "#cloud-config\n{}\n"


def test_user_data_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With the machine, the file and the reason."""
    with pytest.raises(InputError, match=r"'m'.*nothing: No such file"):
        seed_files("lab", "m", config(user_data_file=str(tmp_path / "nothing")))


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,2}", fullmatch=True), st.binary(max_size=64), max_size=4)
)
def test_added_files_are_an_archive_that_cpio_reads(files: dict[str, bytes]) -> None:
    """Names, contents and padding are right for any of them, as the kernel's own format has it."""
    import tempfile
    from pathlib import Path

    names = [name for name in files if not any(other.startswith(f"{name}/") for other in files)]
    with tempfile.TemporaryDirectory() as folder:
        given_files = {}
        for number, name in enumerate(names):
            source = Path(folder, f"source{number}")
            source.write_bytes(files[name])
            given_files[f"/{name}"] = str(source)
        archive = added_files("m", given_files)
        assert len(archive) % 4 == 0
        target = Path(folder, "out")
        target.mkdir()
        subprocess.run(["cpio", "-idm", "--quiet"], input=archive, cwd=target, check=True)
        assert {name: (target / name).read_bytes() for name in names} == {name: files[name] for name in names}


def test_added_files_keep_their_modes(tmp_path: Path) -> None:
    """A script that could be run can be run in the guest."""
    script = tmp_path / "init"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    subprocess.run(
        ["cpio", "-idm", "--quiet"], input=added_files("m", {"/sbin/init": str(script)}), cwd=tmp_path, check=True
    )
    assert (tmp_path / "sbin" / "init").stat().st_mode & 0o777 == 0o755
