"""The AWS side of the lab: moto's server, extended by what Rollcall needs and moto lacks.

`python -m rollcall_emulator` serves EC2, EKS, IAM, STS, SSM, S3 and Auto Scaling on one loopback
port, with state changes that take (scaled) time, AWS's refusals, fault rules and a journal.
Start reading in `server.py` (one request's way) and `world.py` (what all parts share).
"""
