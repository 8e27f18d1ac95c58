"""One rank of a replica whose leader is another process, perhaps on another host."""

from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.replica.model_location import find_model
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.gang.gang_address import GangAddress


def serve_rank(spec: ReplicaSpec, leader: GangAddress, *, rank: int) -> None:
    """Is that rank until its leader dismisses it. A leader that is lost ends the process.

    Raises:
        OSError: there is no leader at this address.
        HandshakeError: it is not the leader of this gang.
        ConfigurationError: the model is another one on this host.
        ModelFileError: it cannot be found here.
    """
    from shardline_workers.gang.rank_process import serve_leader  # brings torch

    def locate(_leaders: ModelFiles) -> ModelFiles:
        return find_model(spec, report=lambda _line: None)

    serve_leader(leader, rank=rank, locate=locate)
