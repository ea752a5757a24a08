"""S3 as `control` and the nodes use it: private buckets, path style, whole objects."""

import hashlib
import http.client

from conftest import Emulator
from scenery import refusal


def test_a_bucket_lives_and_dies(emulator: Emulator) -> None:
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket="rollcall-prod-agent")
    s3.put_public_access_block(
        Bucket="rollcall-prod-agent",
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    s3.put_bucket_tagging(
        Bucket="rollcall-prod-agent",
        Tagging={"TagSet": [{"Key": "rollcall:fleet", "Value": "prod"}]},
    )
    tags = s3.get_bucket_tagging(Bucket="rollcall-prod-agent")["TagSet"]
    assert tags == [{"Key": "rollcall:fleet", "Value": "prod"}]
    body = bytes(range(256)) * 4096
    s3.put_object(Bucket="rollcall-prod-agent", Key="agent/abc.tar.gz", Body=body)
    head = s3.head_object(Bucket="rollcall-prod-agent", Key="agent/abc.tar.gz")
    assert head["ContentLength"] == len(body)
    got = s3.get_object(Bucket="rollcall-prod-agent", Key="agent/abc.tar.gz")["Body"].read()
    assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest()
    with refusal("404"):
        s3.head_object(Bucket="rollcall-prod-agent", Key="agent/none")
    with refusal("NoSuchKey"):
        s3.get_object(Bucket="rollcall-prod-agent", Key="agent/none")
    listed = s3.list_objects_v2(Bucket="rollcall-prod-agent", Prefix="agent/")["Contents"]
    assert [item["Key"] for item in listed] == ["agent/abc.tar.gz"]
    with refusal("BucketNotEmpty"):
        s3.delete_bucket(Bucket="rollcall-prod-agent")
    s3.delete_object(Bucket="rollcall-prod-agent", Key="agent/abc.tar.gz")
    s3.delete_bucket(Bucket="rollcall-prod-agent")
    with refusal("404"):
        s3.head_bucket(Bucket="rollcall-prod-agent")


def test_a_corrupt_rule_flips_one_bit_for_its_keys_only(emulator: Emulator) -> None:
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket="rollcall-corrupt")
    for key in ("agent/a", "other/a"):
        s3.put_object(Bucket="rollcall-corrupt", Key=key, Body=b"0123456789")
    rule = {"service": "s3", "op": "GetObject", "action": "corrupt", "key_prefix": "agent/"}
    emulator.control("POST", "rules", rule)
    damaged = s3.get_object(Bucket="rollcall-corrupt", Key="agent/a")["Body"].read()
    whole = s3.get_object(Bucket="rollcall-corrupt", Key="other/a")["Body"].read()
    assert whole == b"0123456789"
    assert len(damaged) == 10
    assert sum(a != b for a, b in zip(damaged, whole, strict=True)) == 1


def test_nobody_reads_a_private_bucket_unsigned(emulator: Emulator) -> None:
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket="rollcall-private")
    s3.put_object(Bucket="rollcall-private", Key="x", Body=b"x")
    connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"))
    connection.request("GET", "/rollcall-private/x")
    assert connection.getresponse().status == 403
    connection.close()


def test_an_aws_chunked_upload_arrives_whole(emulator: Emulator) -> None:
    """The Rust SDK streams bodies as aws-chunked with a trailing checksum."""
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket="rollcall-chunked")
    url = s3.generate_presigned_url(
        "put_object", Params={"Bucket": "rollcall-chunked", "Key": "x"}
    )
    body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
    connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"))
    connection.request(
        "PUT",
        url.removeprefix(emulator.url),
        body=body,
        headers={
            "content-encoding": "aws-chunked",
            "x-amz-trailer": "x-amz-checksum-crc32",
            "x-amz-decoded-content-length": "11",
            "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        },
    )
    assert connection.getresponse().status == 200
    connection.close()
    assert s3.get_object(Bucket="rollcall-chunked", Key="x")["Body"].read() == b"hello world"
