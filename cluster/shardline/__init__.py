"""The light client of a Shardline cluster: grpcio and protobuf only."""
