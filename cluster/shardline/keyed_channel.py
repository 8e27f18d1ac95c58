"""A channel that shows an API key with every call.

gRPC's own call credentials want TLS, and refuse a key to a router on the same machine; metadata travel either way.
"""

from typing import Any

from shardline.errors import InvalidArgumentError

AUTHORIZATION = "authorization"


class KeyedChannel:
    """Wraps a channel of either flavour; generated stubs take it as one."""

    def __init__(self, channel: Any, api_key: str) -> None:
        self._channel = channel
        self._api_key = api_key

    def unary_unary(self, *arguments: Any, **options: Any) -> "KeyedCall":
        """See gRPC's channel, as with the next three."""
        return KeyedCall(self._channel.unary_unary(*arguments, **options), self._api_key)

    def unary_stream(self, *arguments: Any, **options: Any) -> "KeyedCall":
        """One request, many answers."""
        return KeyedCall(self._channel.unary_stream(*arguments, **options), self._api_key)

    def stream_unary(self, *arguments: Any, **options: Any) -> "KeyedCall":
        """Many requests, one answer."""
        return KeyedCall(self._channel.stream_unary(*arguments, **options), self._api_key)

    def stream_stream(self, *arguments: Any, **options: Any) -> "KeyedCall":
        """Many of both."""
        return KeyedCall(self._channel.stream_stream(*arguments, **options), self._api_key)

    def close(self) -> Any:
        """Closes the channel; with an event loop the result is to be awaited."""
        return self._channel.close()


class KeyedCall:
    """A method of a service, called with the key."""

    def __init__(self, method: Any, api_key: str) -> None:
        self._method = method
        self._api_key = api_key

    def __call__(self, request: Any, **options: Any) -> Any:
        """Calls it."""
        return self._method(request, **self._with_key(options))

    def future(self, request: Any, **options: Any) -> Any:
        """Begins to call it, without an event loop."""
        return self._method.future(request, **self._with_key(options))

    def _with_key(self, options: dict[str, Any]) -> dict[str, Any]:
        metadata = (*(options.get("metadata") or ()), (AUTHORIZATION, f"Bearer {self._api_key}"))
        return {**options, "metadata": metadata}


def checked_key(api_key: str) -> str:
    """The key, if metadata can carry it.

    Raises:
        InvalidArgumentError: they cannot. The message does not repeat the key.
    """
    if not api_key or not all("!" <= character <= "~" for character in api_key):
        raise InvalidArgumentError(
            f"the API key ({len(api_key)} characters) is empty, or holds a space, a line's end or something that is "
            "not ASCII: give the key alone, as `shardline keys create` printed it"
        )
    return api_key
