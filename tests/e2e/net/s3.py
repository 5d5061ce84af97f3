"""One request to an object store, signed (AWS Signature 4): `python -m tests.e2e.net.s3 URL KEY METHOD PATH`.

The secret is in S3_SECRET and the body on the standard input; prints the status and what came.
"""

import hashlib
import hmac
import http.client
import os
import sys
import time
import urllib.parse

REGION = "us-east-1"


def signed(
    key: str, secret: str, method: str, host: str, path: str, body: bytes, now_s: float
) -> dict[str, str]:
    """The headers of a request, by whoever has the secret."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    bare, _, query = path.partition("?")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    parts = [part if "=" in part else f"{part}=" for part in query.split("&") if part]
    asked = "&".join(sorted(parts))
    request = "\n".join((method, urllib.parse.quote(bare), asked, lines, names, digest))
    scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
    text = "\n".join(
        ("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest())
    )  # fmt: skip
    for_it = f"AWS4{secret}".encode()
    for word in (*scope.split("/"), text):
        for_it = hmac.digest(for_it, word.encode(), "sha256")
    said = f"Credential={key}/{scope}, SignedHeaders={names}, Signature={for_it.hex()}"
    return headers | {"Authorization": f"AWS4-HMAC-SHA256 {said}"}


def main(url: str, key: str, method: str, path: str) -> None:
    host, body = url.removeprefix("http://"), sys.stdin.buffer.read()
    headers = signed(key, os.environ["S3_SECRET"], method, host, path, body, time.time())
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    print(answer.status)
    sys.stdout.flush()
    sys.stdout.buffer.write(answer.read())
    connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
