"""Connections to Redis or Valkey: one server, Sentinel or Cluster, by URL; every operation has a deadline."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeAlias, TypeVar
from urllib.parse import SplitResult, urlsplit, urlunsplit

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff

from visavis.runtime.errors import StateStoreUnavailable
from visavis.runtime.settings import RedisSettings, split_address

RedisClient: TypeAlias = "Redis | RedisCluster"

T = TypeVar("T")

# Strong references: a task that nobody holds can be collected while it runs.
_under_way: "set[asyncio.Future[Any]]" = set()

DEFAULT_SENTINEL_PORT = 26379
# What a failover or an outage looks like; everything else is our own mistake.
OUTAGES = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.RedisClusterException,
    exceptions.OutOfMemoryError,
    OSError,
)


def connect_redis(settings: RedisSettings) -> RedisClient:
    """A client for the URL's kind of server; connects at the first operation. Replies are bytes. See `redis_reply`.

    Schemes: redis, rediss (TLS), unix; redis+sentinel and rediss+sentinel
    (`//user:password@host:26379,host:26379/primary-name/0`); redis+cluster and rediss+cluster. Raises ValueError.
    """
    parts = urlsplit(settings.url)
    base, _, kind = parts.scheme.partition("+")
    if base not in ("redis", "rediss", "unix") or kind not in ("", "sentinel", "cluster"):
        raise ValueError(f"Redis URL scheme {parts.scheme!r} is unknown; use redis, rediss, unix, redis+sentinel, ...")
    if kind == "sentinel":
        return _connect_sentinel(settings, parts, tls=base == "rediss")
    if kind == "cluster":
        return RedisCluster.from_url(
            urlunsplit(parts._replace(scheme=base)),
            retry=_retry(),
            socket_timeout=settings.timeout_seconds,
            socket_connect_timeout=settings.timeout_seconds,
        )
    client: Redis = Redis.from_url(
        settings.url,
        retry=_retry(),
        socket_timeout=settings.timeout_seconds,
        socket_connect_timeout=settings.timeout_seconds,
    )
    return client


async def redis_reply(operation: Awaitable[T], *, timeout_seconds: float) -> T:
    """Awaits one Redis operation; raises StateStoreUnavailable when it fails or takes too long.

    Await every operation through this. Before Python 3.12 `asyncio.wait_for`, which redis-py sends with, drops a
    cancellation that arrives just when the bytes are out: a bare `await` then goes on as if nobody had cancelled it,
    and a deadline around it passes unnoticed. So the operation runs in a task of its own.
    """
    task = asyncio.ensure_future(operation)
    _under_way.add(task)
    task.add_done_callback(_forget)
    try:
        async with asyncio.timeout(timeout_seconds):
            return await asyncio.shield(task)
    except (TimeoutError, *OUTAGES) as error:
        raise StateStoreUnavailable("the state store cannot be reached; try again") from error
    finally:
        task.cancel()


def _forget(task: "asyncio.Future[Any]") -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # whoever gave it up does not want to know


def _connect_sentinel(settings: RedisSettings, parts: SplitResult, *, tls: bool) -> Redis:
    hosts = parts.netloc.rpartition("@")[2].split(",")
    sentinels = [split_address(host if ":" in host else f"{host}:{DEFAULT_SENTINEL_PORT}") for host in hosts]
    primary, _, database = parts.path.strip("/").partition("/")
    if not primary:
        raise ValueError("a Sentinel URL names the primary: redis+sentinel://host:26379/primary-name/0")
    timeout = settings.timeout_seconds
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        sentinels, sentinel_kwargs={"socket_timeout": timeout, "socket_connect_timeout": timeout}
    )
    client: Redis = sentinel.master_for(
        primary,
        db=int(database or 0),
        username=parts.username,
        password=parts.password,
        ssl=tls,
        retry=_retry(),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
    )
    return client


def _retry() -> Retry:
    # Covers a connection that died while idle; longer outages are for the caller to wait out.
    return Retry(ExponentialBackoff(cap=0.1, base=0.01), 2)
