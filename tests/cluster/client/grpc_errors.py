"""What gRPC raises, as far as the client looks at it."""

import grpc


class FakeError(Exception):
    """An error of either flavour of gRPC."""

    def __init__(self, code: grpc.StatusCode, details: str = "", *, retry_after_ms: int | None = None) -> None:
        super().__init__(details)
        self._code = code
        self._details = details
        self._metadata = () if retry_after_ms is None else (("retry-after-ms", str(retry_after_ms)),)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata
