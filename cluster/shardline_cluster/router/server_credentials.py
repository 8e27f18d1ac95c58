"""A router's TLS credentials, which follow their files: whoever replaces them restarts nothing.

gRPC asks at the beginning of each connection whether the certificate is still the one. Connections that are open keep
theirs; a new pair that will not do leaves the old one in place.
"""

import logging
import threading
from typing import cast

import grpc

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.router.tls_files import Certificates, Signature, TlsFiles

log = logging.getLogger(__name__)


class CertificateWatch:
    """Looks at the files whenever it is asked, and reads them when they changed. Safe to share between threads."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises CertificateError where the files will not do."""
        self._files = files
        self._seen: Signature | None = files.signature()
        self._lock = threading.Lock()
        self._complaint = ""
        self.first = files.load()

    def changed(self) -> Certificates | None:
        """What the files hold, if that is new and will do. What will not is told once."""
        with self._lock:
            try:
                signature = self._files.signature()
                if signature == self._seen:
                    return None
                self._seen = signature
                loaded = self._files.load()
            except (ConfigurationError, OSError, ValueError) as error:  # gRPC would refuse connections on any other
                self._complain(str(error))
                return None
        self._complaint = ""
        log.info("the certificate was replaced: %s", loaded.told)
        return loaded

    def _complain(self, what: str) -> None:
        if what != self._complaint:
            self._complaint = what
            log.error("the certificate on disk is not used, the last good one stays: %s", what)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials of a server, which follow these files.

    Raises:
        CertificateError: they will not do.
    """
    watch = CertificateWatch(files)

    def fetch() -> grpc.ServerCertificateConfiguration:
        changed = watch.changed()
        unchanged = cast(
            "grpc.ServerCertificateConfiguration", None
        )  # what gRPC takes it to mean; its types do not know
        return unchanged if changed is None else _configuration(changed)

    credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        _configuration(watch.first), fetch, require_client_authentication=files.client_ca is not None
    )
    return credentials


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    pairs = [(certificates.key, certificates.cert)]
    return grpc.ssl_server_certificate_configuration(pairs, root_certificates=certificates.client_ca)
