"""Where a crew pod finds what the operator mounts for it.

The operator's manifest, the claim that names the paths, and the runner that reads the token
have to agree; they agree by importing this.
"""

from __future__ import annotations

SOURCE_FOLDER = "/var/run/discovery/source"
VOLUME_FOLDER = "/var/run/discovery/volume"
SCHEMA_FOLDER = "/var/run/discovery/schema"
TOKEN_FOLDER = "/var/run/secrets/discoveryflow"  # noqa: S105 - a folder, not a secret
TOKEN_FILE = f"{TOKEN_FOLDER}/token"
