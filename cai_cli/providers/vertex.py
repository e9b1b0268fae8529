"""Claude on Google Vertex AI. Needs `pip install 'cai-cli[vertex]'`.

The credentials are Google's application default ones (GOOGLE_APPLICATION_CREDENTIALS, gcloud, a machine's account); the region is
CLOUD_ML_REGION; the project ANTHROPIC_VERTEX_PROJECT_ID, else GOOGLE_CLOUD_PROJECT; the address ANTHROPIC_VERTEX_BASE_URL, as the
SDK reads them. `model.name` is Vertex's model id.
"""

from __future__ import annotations

import os

from cai_cli.errors import Fix
from cai_cli.flow import Model
from cai_cli.providers._keys import named_key
from cai_cli.providers._sdk import SdkProvider, address_of, need, settings

SAMPLING_VERSION = "vertex-2023-10-16"
MULTI_REGIONS = {"global": "aiplatform.googleapis.com", "us": "aiplatform.us.rep.googleapis.com",
                 "eu": "aiplatform.eu.rep.googleapis.com"}  # fmt: skip


def connect(model: Model) -> SdkProvider:
    """Open Vertex in the environment's region and project. Credentials are looked for with the first request.

    Raises: Fix: a missing package, region or project, an address that may not be used
    """
    need("google.auth", "vertex")
    from anthropic import AsyncAnthropicVertex
    from google.auth.exceptions import GoogleAuthError, TransportError

    region = _set("CLOUD_ML_REGION")
    project = _set("ANTHROPIC_VERTEX_PROJECT_ID", "GOOGLE_CLOUD_PROJECT")
    own = MULTI_REGIONS.get(region, f"{region}-aiplatform.googleapis.com")
    address = address_of(model, "ANTHROPIC_VERTEX_BASE_URL", f"https://{own}/v1")
    key = named_key(address, model.key_env, "the Google credential")
    token = key.value if key else None
    client = AsyncAnthropicVertex(region=region, project_id=project, access_token=token, **settings(address))
    return SdkProvider(
        client=client, address=address, key_label=key.label if key else "the Google credentials",
        sampling_version=SAMPLING_VERSION, failures=(GoogleAuthError,), outages=(TransportError,),
    )  # fmt: skip


def _set(*names: str) -> str:
    """The first of these variables that is set. Raises: Fix"""
    value = next((value for name in names if (value := os.environ.get(name, "").strip())), "")
    if not value:
        raise Fix(f"{' or '.join(names)} is not set", f"export {names[0]}=...")
    return value
