"""Refuses bytes that are no message of the contract, for calls with one request.

grpc parses them before any handler runs and answers UNKNOWN with Python's error text otherwise. Request streams are
read by `boundary.next_request`, which does the same.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from visavis.runtime.boundary import abort, unreadable_request

_UNREADABLE: Final = object()


class RefuseUnreadableRequests(grpc.aio.ServerInterceptor):
    """INVALID_ARGUMENT for a request that cannot be parsed."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Gives the handler that parses with care."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        parse, behavior = handler.request_deserializer, handler.unary_unary

        def parse_carefully(data: bytes) -> Any:
            try:
                return parse(data)
            except DecodeError:
                return _UNREADABLE

        async def refuse_or_answer(request: Any, context: Any) -> Any:
            if request is _UNREADABLE:
                await abort(context, unreadable_request())
            return await behavior(request, context)

        return grpc.unary_unary_rpc_method_handler(
            refuse_or_answer, request_deserializer=parse_carefully, response_serializer=handler.response_serializer
        )
