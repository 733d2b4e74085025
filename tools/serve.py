"""`make serve`: a server in the foreground, and a line of grpcurl to try on it.

The administrator's key of a first start is kept in `.data/admin-key` (readable by its owner alone), so that it can be
printed at the next start as well. That is for trying out; a real server prints it once.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the server; pass on what it says."""
    environment = {"BLOBHUB_DATA_DIR": str(ROOT / ".data")} | os.environ
    data_dir = Path(environment["BLOBHUB_DATA_DIR"])
    kept = data_dir / "admin-key"
    scripts = Path(sys.executable).parent
    with subprocess.Popen(
        [scripts / "blobhub-server", "serve"], env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if found := re.search(r"bhk_\w+", line):
                    keep(kept, found.group())
                elif serving := re.search(r"serves on (\S+)", line):
                    tell(serving.group(1), kept, environment, scripts)
        except KeyboardInterrupt:
            server.terminate()
        return server.wait()


def keep(path: Path, key: str) -> None:
    """Write the key to a file of its owner's."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key)


def tell(address: str, kept: Path, environment: dict[str, str], scripts: Path) -> None:
    """Print where the server is and how to call it."""
    key = environment.get("BLOBHUB_ADMIN_KEY") or (kept.read_text() if kept.exists() else "<the administrator's key>")
    print(f"BlobHub serves on {address}")
    print(f"export KEY={key}")
    grpcurl = f"{scripts.relative_to(ROOT)}/grpcurl"
    print("Try:")
    print(
        f'  {grpcurl} -plaintext -H "authorization: Bearer $KEY" {address} blobhub.v1.CallerService/GetCaller',
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
