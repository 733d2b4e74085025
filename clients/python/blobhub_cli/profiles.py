"""Profiles: servers, and the keys for them, in a file that its owner alone can read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from blobhub_cli.failures import CommandError

DEFAULT = "default"
DEFAULT_ADDRESS = "127.0.0.1:7443"
TLS = "https://"


@dataclass(frozen=True)
class Profile:
    """A server and how to get in. An address that begins with `https://` is reached over TLS."""

    address: str = DEFAULT_ADDRESS
    key: str = ""
    ca_file: str = ""

    @property
    def host(self) -> str:
        """Host and port, as gRPC takes them."""
        return self.address.removeprefix(TLS).removeprefix("http://").rstrip("/")

    @property
    def is_secure(self) -> bool:
        """Whether the server is reached over TLS."""
        return self.address.startswith(TLS) or bool(self.ca_file)


@dataclass
class Profiles:
    """All profiles, and which one holds unless a command says otherwise."""

    current: str = DEFAULT
    profiles: dict[str, Profile] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Profiles:
        """Those in the file; none where there is none. Raises CommandError."""
        path = file_path()
        try:
            mode = path.stat().st_mode
            stored = json.loads(path.read_text())
            found = {name: Profile(**profile) for name, profile in stored["profiles"].items()}
            current = stored["current"]
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CommandError(
                f"the profiles in {path} cannot be read: {error}", next_step=f"repair it, or remove it: rm {path}"
            ) from error
        if mode & 0o077:
            raise CommandError(f"others may read {path}, which has keys in it", next_step=f"chmod 600 {path}")
        return cls(current=current, profiles=found)

    def save(self) -> None:
        """Write the file anew, in one step."""
        path = file_path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        stored = {"current": self.current, "profiles": {name: asdict(each) for name, each in self.profiles.items()}}
        descriptor, written = tempfile.mkstemp(dir=path.parent, prefix=".profiles")  # is its owner's alone
        with os.fdopen(descriptor, "w") as file:
            json.dump(stored, file, indent=2)
        Path(written).replace(path)

    def get(self, name: str) -> Profile:
        """The profile of a name. Raises CommandError."""
        if name not in self.profiles:
            there_are = ", ".join(sorted(self.profiles)) or "none"
            raise CommandError(
                f"there is no profile {name}; there are: {there_are}",
                next_step=f"blobhub login ADDRESS --profile {name}",
            )
        return self.profiles[name]


def file_path() -> Path:
    """Where the profiles are kept: in the folder that XDG_CONFIG_HOME names, or ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "blobhub" / "profiles.json"


def choose(profile: str, address: str, environment: Mapping[str, str]) -> Profile:
    """The server that a command is for: as said on the command line, else in the environment, else in the profile.

    A profile's key goes to the profile's address and to no other.
    """
    stored = Profiles.load()
    name = profile or environment.get("BLOBHUB_PROFILE", "")
    found = stored.get(name) if name else stored.profiles.get(stored.current, Profile())
    asked = address or ("" if profile else environment.get("BLOBHUB_ADDRESS", ""))
    if asked and asked != found.address:
        found = Profile(address=asked, ca_file=environment.get("BLOBHUB_CA_FILE", ""))
    key = "" if profile and found.key else environment.get("BLOBHUB_API_KEY", "")
    return Profile(address=found.address, key=key or found.key, ca_file=found.ca_file)
