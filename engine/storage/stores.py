"""From an address to an object store and a path in it. Stores are shared, and with them their connections."""

from __future__ import annotations

import os
from base64 import b64encode
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from engine.errors import ConfigError
from engine.storage.uris import BUCKETS, WEB, scheme_of

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_NO_RETRY = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}  # the reader repeats, from where it was
_PATIENCE = {"connect_timeout": "20s", "read_timeout": "30s", "timeout": "1h", "pool_idle_timeout": "60s"}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def split_address(uri: str) -> tuple[str, str]:
    """Split a distant file's address into its store and its path there.

    Raises:
        ConfigError: it names no store of a known kind.
    """
    scheme = scheme_of(uri)
    parts = urlsplit(uri)
    if not parts.hostname:
        raise ConfigError("names no server and no bucket", file=uri)
    if scheme in WEB:
        return urlunsplit((scheme, parts.netloc, "", parts.query, "")), unquote(parts.path.strip("/"))
    if scheme in BUCKETS:
        return f"{BUCKETS[scheme]}://{parts.netloc}", uri.split(parts.netloc, 1)[1].strip("/")
    raise ConfigError(f"{scheme}:// is no store that can be read", file=uri)


def open_store(root: str, *, repeating: bool = False) -> ObjectStore:
    """Open a store with the credentials of the environment.

    Args:
        root: the first part of `split_address`, or an address in a bucket that all paths begin with.
        repeating: let the store repeat what fails, for callers that do not.

    Raises:
        ConfigError: it cannot be configured.
    """
    try:
        return _bucket(root, repeating) if scheme_of(root) not in WEB else _web(root, ())
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"cannot be opened: {str(error).splitlines()[0]}", file=root) from error


def open_hub_store(root: str, headers: dict[str, str]) -> ObjectStore:
    """Open the files of one commit of a Hub repository, below a web address."""
    return _web(root, tuple(sorted(headers.items())))


@cache
def _web(root: str, headers: tuple[tuple[str, str], ...]) -> ObjectStore:
    from obstore.store import HTTPStore

    parts = urlsplit(root)
    login, at, host = parts.netloc.rpartition("@")
    sent = {**dict(headers), **({"authorization": _basic(login)} if at else {})}
    options: Any = {**_PATIENCE, "allow_http": parts.scheme == "http", "default_headers": sent}
    return HTTPStore.from_url(
        urlunsplit(parts._replace(netloc=host)), client_options=options, retry_config=_retry()
    )


def _basic(login: str) -> str:
    """The header for a name and a password in an address."""
    return "Basic " + b64encode(unquote(login).encode()).decode()


@cache
def _bucket(root: str, repeating: bool) -> ObjectStore:
    from obstore import exceptions
    from obstore.store import from_url

    options: Any = {**_PATIENCE, "allow_http": _plain_http()}
    extra: Any = {"credential_provider": provider} if (provider := _profile(root)) else {}
    if root.startswith("s3://") and (endpoint := _endpoint()):
        extra["endpoint"] = endpoint
    try:
        retry = None if repeating else _retry()
        return from_url(root, client_options=options, retry_config=retry, **extra)
    except exceptions.BaseError as error:
        raise ConfigError(f"cannot be opened: {str(error).splitlines()[0]}", file=root) from error


def _retry() -> Any:
    return dict(_NO_RETRY)


def _endpoint() -> str | None:
    return next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)


def _plain_http() -> bool:
    """Whether the environment names a server without TLS, such as one on this machine."""
    return (_endpoint() or os.environ.get("AZURE_STORAGE_ENDPOINT", "")).startswith("http://")


def _profile(root: str) -> Any:
    """Credentials of an AWS profile, when boto3 is there to find them and the environment has none."""
    if not root.startswith("s3://") or os.environ.get("AWS_ACCESS_KEY_ID"):
        return None
    if os.environ.get("AWS_SKIP_SIGNATURE"):
        return None
    try:
        from boto3 import Session
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    session = Session()
    return Boto3CredentialProvider(session) if session.get_credentials() else None
