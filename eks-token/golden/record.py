"""Records what `aws eks get-token` answers for fixed inputs at a fixed time. How aws-cli.json was made, with the AWS CLI that
`make e2e-setup` gets, pinned (its folder stands in parts.json):

    .../awscli-1.46.2/bin/python eks-token/golden/record.py > eks-token/golden/aws-cli.json

The clock is the only thing that is changed: botocore's, with which it signs, and the command's own.
"""

import contextlib
import datetime
import io
import json
import os
import sys

import awscli
import awscli.clidriver
import botocore.auth  # vendored: importable once awscli is
from awscli.customizations.eks import get_token

AT = datetime.datetime(2026, 11, 20, 20, 0, 0)
# AWS's own example key, and one whose characters need escaping; session tokens as STS makes them.
KEYS = {
    "user": ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None),
    "role": ("ASIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI+K7MDENG/bPxRfiCYEXAMPLEKEY", "IQoJb3JpZ2luX2VjEXAMPLE//+to/ken=="),
}
CASES = [
    {"key": "user", "region": "us-east-1", "cluster": "prod"},
    {"key": "role", "region": "us-east-1", "cluster": "prod"},
    {"key": "role", "region": "us-east-1", "cluster": "Other_cluster-2"},
    {"key": "role", "region": "eu-central-1", "cluster": "prod"},
    {"key": "role", "region": "us-gov-west-1", "cluster": "prod"},
    {"key": "role", "region": "cn-north-1", "cluster": "prod"},
    {"key": "role", "region": "us-iso-east-1", "cluster": "prod"},
    {"key": "role", "region": "us-isob-east-1", "cluster": "prod"},
    {"key": "role", "region": "eusc-de-east-1", "cluster": "prod"},
    # What endpoint variables make of it: nothing that a cluster takes.
    {"key": "role", "region": "us-east-1", "cluster": "prod", "stsEndpoint": "https://127.0.0.1:4566"},
    {"key": "role", "region": "us-east-1", "cluster": "prod", "stsEndpoint": "http://sts.us-east-1.amazonaws.com"},
]


def record(case):
    key, secret, session = KEYS[case["key"]]
    # AWS_DATA_PATH is the CLI's own, set when it was imported.
    for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_DATA_PATH"]:
        del os.environ[name]
    os.environ.update(
        AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret, AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull, AWS_EC2_METADATA_DISABLED="true",
    )
    if session:
        os.environ["AWS_SESSION_TOKEN"] = session
    if "stsEndpoint" in case:
        os.environ["AWS_ENDPOINT_URL_STS"] = case["stsEndpoint"]
    said = io.StringIO()
    arguments = ["eks", "get-token", "--cluster-name", case["cluster"], "--region", case["region"], "--output", "json"]
    with contextlib.redirect_stdout(said):
        code = awscli.clidriver.create_clidriver().main(arguments)
    if code != 0:
        raise SystemExit(f"{case}: ended with {code}")
    status = json.loads(said.getvalue())["status"]
    return {
        "accessKeyId": key, "secretAccessKey": secret, "sessionToken": session, "region": case["region"],
        "cluster": case["cluster"], "stsEndpoint": case.get("stsEndpoint"), "status": status,
    }


def main():
    for module in (botocore.auth, get_token):
        module.get_current_datetime = lambda: AT
    recorded = {
        "awscli": awscli.__version__,
        "at": AT.isoformat() + "Z",
        "cases": [record(case) for case in CASES],
    }
    json.dump(recorded, sys.stdout, indent=2)
    print()


main()
