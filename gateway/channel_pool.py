"""One channel per address of a stage, shared by all sessions that use it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from visavis.runtime.channels import open_channel
from visavis.runtime.settings import TlsSettings


@dataclass(slots=True)
class _PooledChannel:
    channel: grpc.aio.Channel
    users: int = 0


class ChannelPool:
    """Opens a channel at its first use and keeps it until `prune` finds its address gone and nobody using it."""

    def __init__(self, tls: TlsSettings) -> None:
        self._tls = tls
        self._channels: dict[str, _PooledChannel] = {}

    @property
    def addresses(self) -> frozenset[str]:
        """Addresses with an open channel."""
        return frozenset(self._channels)

    @contextmanager
    def borrow(self, address: str) -> Iterator[grpc.aio.Channel]:
        """The channel to `address`, which stays open at least until the block is left."""
        pooled = self._channels.get(address)
        if pooled is None:
            pooled = self._channels[address] = _PooledChannel(open_channel(address, self._tls))
        pooled.users += 1
        try:
            yield pooled.channel
        finally:
            pooled.users -= 1

    async def prune(self, live_addresses: Collection[str]) -> None:
        """Close channels to addresses that nothing serves any more."""
        gone = [a for a, pooled in self._channels.items() if not pooled.users and a not in live_addresses]
        await self._close(gone)

    async def close(self) -> None:
        """Close every channel; calls that still use them fail."""
        await self._close(list(self._channels))

    async def _close(self, addresses: list[str]) -> None:
        channels = [self._channels.pop(address).channel for address in addresses]
        await asyncio.gather(*(channel.close() for channel in channels))
