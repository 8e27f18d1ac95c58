"""Assignments and what follows on them, as messages and back: see gang.proto."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message

from shardline_protos import gang_pb2
from shardline_workers.communicator import GroupLimits, GroupPlace
from shardline_workers.engine_config import EngineConfig
from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.gang.assignment import Assignment, RingSeat, StoreAddress
from shardline_workers.gang.group_plan import GroupInvitation, Invitations, Transport
from shardline_workers.gang.loaded_share import LoadedShare
from shardline_workers.parallel.expert_placement import PlacementWish
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits

_Plain = TypeVar("_Plain")


def encode_assignment(assignment: Assignment) -> gang_pb2.Order:
    """The leader's first order."""
    groups = assignment.invitations
    message = gang_pb2.Assignment(
        rank=assignment.position.rank,
        device_index=assignment.device_index,
        config=_encode_config(assignment.config),
        groups=[_encode_group(group) for group in (groups.tensor, groups.stage, groups.pipeline)],
        wait_s=assignment.limits.wait_s,
        join_s=assignment.limits.join_s,
    )
    if assignment.store is not None:
        message.store_host, message.store_port = assignment.store.host, assignment.store.port
    if assignment.ring is not None:
        message.ring.CopyFrom(gang_pb2.Ring(**_fields(assignment.ring)))
    return gang_pb2.Order(assignment=message)


def decode_assignment(message: gang_pb2.Assignment) -> Assignment:
    """The same.

    Raises:
        ValueError: it makes no sense.
    """
    config = _decode_config(message.config)
    tensor, stage, pipeline = map(_decode_group, message.groups)
    return Assignment(
        position=RankPosition.of(config.plan, message.rank),
        device_index=message.device_index,
        config=config,
        invitations=Invitations(tensor=tensor, stage=stage, pipeline=pipeline),
        limits=GroupLimits(join_s=message.join_s, wait_s=message.wait_s),
        store=StoreAddress(host=message.store_host, port=message.store_port) if message.store_port else None,
        ring=_plain(RingSeat, message.ring) if message.HasField("ring") else None,
    )


def encode_limits(limits: SchedulerLimits) -> gang_pb2.Order:
    """The leader's order to build."""
    return gang_pb2.Order(build=gang_pb2.Build(**_fields(limits)))


def decode_limits(message: gang_pb2.Build) -> SchedulerLimits:
    """The same."""
    return _plain(SchedulerLimits, message)


def encode_share(share: LoadedShare) -> gang_pb2.Reply:
    """A rank's answer to the order to load."""
    fields = _fields(share)
    del fields["rank_name"], fields["position"]
    return gang_pb2.Reply(loaded=gang_pb2.Loaded(**fields))


def decode_share(message: gang_pb2.Loaded, *, rank_name: str, position: RankPosition) -> LoadedShare:
    """The same; the leader knows whose it is."""
    return _plain(
        LoadedShare, message, rank_name=rank_name, position=position, numerics=dict(sorted(message.numerics.items()))
    )


def _encode_config(config: EngineConfig) -> gang_pb2.Config:
    fields = _fields(config)
    fields["files"] = gang_pb2.Files(
        **{**_fields(config.files), "kind": config.files.kind.value, "path": str(config.files.path)}
    )
    fields["plan"] = gang_pb2.Plan(**_fields(config.plan))
    fields["expert_placement"] = gang_pb2.ExpertPlacement(
        num_redundant=config.expert_placement.num_redundant,
        loads=[gang_pb2.ExpertLoads(tokens=tokens) for tokens in config.expert_placement.loads],
    )
    return gang_pb2.Config(**fields)


def _decode_config(message: gang_pb2.Config) -> EngineConfig:
    files = message.files
    return _plain(
        EngineConfig,
        message,
        files=_plain(ModelFiles, files, kind=ModelKind(files.kind), path=Path(files.path)),
        plan=_plain(ParallelPlan, message.plan),
        expert_placement=PlacementWish(
            num_redundant=message.expert_placement.num_redundant,
            loads=tuple(tuple(layer.tokens) for layer in message.expert_placement.loads),
        ),
    )


def _encode_group(group: GroupInvitation) -> gang_pb2.Group:
    return gang_pb2.Group(
        name=group.name,
        place=group.place.rank,
        num_ranks=group.place.num_ranks,
        transport=group.transport.name,
    )


def _decode_group(message: gang_pb2.Group) -> GroupInvitation:
    return GroupInvitation(
        name=message.name,
        place=GroupPlace(rank=message.place, num_ranks=message.num_ranks),
        transport=Transport[gang_pb2.Transport.Name(message.transport)],
    )


def _fields(plain: Any) -> dict[str, Any]:
    """Of a dataclass whose message has fields of the same names; those that are None are left out."""
    told = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    return {name: value for name, value in told.items() if value is not None}


def _plain(plain: type[_Plain], message: Message, /, **others: object) -> _Plain:
    """A dataclass from a message with fields of the same names; optional ones that are absent become None."""
    told: dict[str, object] = {}
    for field in message.DESCRIPTOR.fields:
        is_absent = field.has_presence and field.message_type is None and not message.HasField(field.name)
        told[field.name] = None if is_absent else getattr(message, field.name)
    return plain(**{**told, **others})
