"""EC2's errors; moto renders them."""


def ec2_error(code: str, message: str) -> Exception:
    """A modelled EC2 error, to be raised."""
    from moto.ec2.exceptions import EC2ClientError

    return EC2ClientError(code, message)


def dependency_violation(kind: str, resource_id: str) -> Exception:
    """What EC2 answers when something still hangs on the resource."""
    return ec2_error(
        "DependencyViolation",
        f"The {kind} '{resource_id}' has dependencies and cannot be deleted.",
    )


USER_DATA_LIMIT = 16384


def check_user_data(raw: bytes) -> None:
    """EC2 takes at most 16 KiB of user data, counted before base64."""
    if len(raw) > USER_DATA_LIMIT:
        raise ec2_error("InvalidParameterValue", "User data is limited to 16384 bytes")
