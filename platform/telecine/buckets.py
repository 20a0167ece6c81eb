"""Administration of an ``s3://`` store: its bucket, what expires in it, and links that a browser can follow.

obstore moves data (:mod:`telecine.storage`); this is the rest, done with MinIO's client, which speaks to any server.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from telecine.errors import InputError, RetryLater
from telecine.storage import REFUSALS

if TYPE_CHECKING:
    from minio import Minio

MAX_LINK_S = 7 * 86400
"""The longest life that the signature scheme allows a link."""
_RULE = "telecine-unfinished-uploads"
_TIMEOUT_S = 10.0


def prepare(uri: str) -> None:
    """Make the bucket of an ``s3://`` store unless it exists, and let unfinished uploads in it expire after a day.

    Raises:
        InputError: refused credentials, or a name that no bucket can have.
        RetryLater: if the endpoint does not answer.
    """
    bucket = urlsplit(uri).netloc
    with _translated(uri):
        client = _client(os.environ)
        if not client.bucket_exists(bucket):
            _make(client, bucket)
        _expire_unfinished(client, bucket)


def signed_link(uri: str, *, seconds: int = 3600) -> str:
    """An http(s) link to one object of an ``s3://`` store that works without credentials until it expires.

    Whoever has the link has the object: print it where a person asked for it, never into a log.

    Args:
        seconds: life of the link, 1 to :data:`MAX_LINK_S`.
    """
    if not 1 <= seconds <= MAX_LINK_S:
        raise InputError(f"a signed link can live 1 to {MAX_LINK_S} s, got {seconds}")
    parts = urlsplit(uri)
    with _translated(uri):
        client = _client(os.environ)
        return client.presigned_get_object(parts.netloc, parts.path.lstrip("/"), timedelta(seconds=seconds))


def _client(environment: Mapping[str, str]) -> "Minio":
    import urllib3
    from minio import Minio
    from minio.credentials.providers import ChainedProvider, EnvAWSProvider, IamAwsProvider

    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    parts = urlsplit(endpoint or f"https://s3.{region}.amazonaws.com")
    providers = [EnvAWSProvider(), IamAwsProvider()]
    retries = urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504])
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(_TIMEOUT_S), retries=retries)
    return Minio(
        endpoint=parts.netloc,
        secure=parts.scheme == "https",
        region=region,
        credentials=ChainedProvider(providers),
        http_client=pool,
    )


def _make(client: "Minio", bucket: str) -> None:
    from minio.error import S3Error

    try:
        client.make_bucket(bucket_name=bucket)
    except S3Error as error:
        if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise


def _expire_unfinished(client: "Minio", bucket: str) -> None:
    """Add our rule to those that stand. Some servers know no lifecycle: a leftover part then only costs space."""
    from minio.commonconfig import ENABLED, Filter
    from minio.error import S3Error
    from minio.lifecycleconfig import AbortIncompleteMultipartUpload, LifecycleConfig, Rule

    ours = Rule(
        status=ENABLED,
        rule_id=_RULE,
        rule_filter=Filter(prefix=""),
        abort_incomplete_multipart_upload=AbortIncompleteMultipartUpload(days_after_initiation=1),
    )
    try:
        standing = client.get_bucket_lifecycle(bucket_name=bucket)
        rules = list(standing.rules) if standing else []
        if _RULE not in [rule.rule_id for rule in rules]:
            client.set_bucket_lifecycle(bucket_name=bucket, config=LifecycleConfig([*rules, ours]))
    except S3Error as error:
        if error.code not in ("NotImplemented", "MethodNotAllowed", "AccessDenied", "NoSuchLifecycleConfiguration"):
            raise


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    from minio.error import MinioException, S3Error
    from urllib3.exceptions import HTTPError

    try:
        yield
    except S3Error as error:
        if error.code in REFUSALS:
            raise InputError(f"store {uri}: access refused ({error.code}); {REFUSALS[error.code]}") from None
        raise RetryLater(f"store {uri}: {error.code}: {error.message}") from None
    except ValueError as error:  # what the client refuses before it asks: names of buckets, missing credentials
        raise InputError(f"store {uri}: {error}") from None
    except (MinioException, HTTPError, OSError) as error:
        raise RetryLater(f"store {uri}: not reachable ({type(error).__name__})") from None
