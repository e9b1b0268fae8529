"""Claude on Amazon Bedrock. Needs `pip install 'cai-cli[bedrock]'`.

Credentials, region and address come from where the SDK looks: AWS_BEARER_TOKEN_BEDROCK, else the AWS credential chain;
AWS_REGION or AWS_DEFAULT_REGION, else the AWS profile's; ANTHROPIC_BEDROCK_BASE_URL. `model.name` is Bedrock's model id.
"""

from __future__ import annotations

import os

from cai_cli.errors import Exit, Fatal, Fix
from cai_cli.flow import Model
from cai_cli.providers._answers import AGAIN
from cai_cli.providers._keys import named_key
from cai_cli.providers._sdk import SdkProvider, address_of, need, settings

SAMPLING_VERSION = "bedrock-2023-05-31"
HINT = f"export AWS_BEARER_TOKEN_BEDROCK, or sign in with the AWS command line; {AGAIN}"


def connect(model: Model) -> SdkProvider:
    """Open Bedrock in the environment's region. Credentials are looked for with the first request.

    Raises: Fix: a missing package or region, an address that may not be used
    """
    need("boto3", "bedrock")
    from anthropic import AsyncAnthropicBedrock
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    region = _region()
    address = address_of(model, "ANTHROPIC_BEDROCK_BASE_URL", f"https://bedrock-runtime.{region}.amazonaws.com")
    key = named_key(address, model.key_env, "the AWS credential")
    token = key.value if key else os.environ.get("AWS_BEARER_TOKEN_BEDROCK") or None
    return SdkProvider(
        client=AsyncAnthropicBedrock(aws_region=region, api_key=token, **settings(address)), address=address,
        key_label=key.label if key else "the AWS credentials", sampling_version=SAMPLING_VERSION,
        failures=(BotoCoreError, ClientError),
        outages=(HTTPClientError,), prepare=None if token else _find_credentials,
    )  # fmt: skip


def _region() -> str:
    import boto3

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or boto3.Session().region_name
    if not region:
        raise Fix("no AWS region is set", "export AWS_REGION=..., such as us-east-1")
    return str(region)


def _find_credentials() -> None:
    import boto3

    if boto3.Session().get_credentials() is None:
        raise Fatal("there are no AWS credentials", HINT, Exit.KEY)
