"""`shardline.v1.Admin` over grpc.aio."""

from shardline_cluster.access.api_key import Scope
from shardline_cluster.router.admin.administration import Administration
from shardline_cluster.router.service_shell import Context, ServiceShell
from shardline_protos import admin_pb2 as pb
from shardline_protos.admin_pb2_grpc import AdminServicer

NEEDED = Scope.ADMIN


class AdminService(AdminServicer):
    """The servicer."""

    def __init__(self, administration: Administration, shell: ServiceShell) -> None:
        self._deployments = administration.deployments
        self._keys = administration.keys
        self._usage = administration.usage
        self._shell = shell

    async def ApplyDeployment(self, request: pb.ApplyDeploymentRequest, context: Context) -> None:  # noqa: N802
        """Deploys a model, or changes its deployment."""
        await self._shell.stream(context, NEEDED, lambda _: self._deployments.apply(request))

    async def DeleteDeployment(  # noqa: N802
        self, request: pb.DeleteDeploymentRequest, context: Context
    ) -> pb.DeleteDeploymentResponse:
        """Takes a deployment away."""
        return await self._shell.answer(context, NEEDED, lambda _: self._deployments.delete(request))

    async def ListDeployments(  # noqa: N802
        self, request: pb.ListDeploymentsRequest, context: Context
    ) -> pb.ListDeploymentsResponse:
        """Tells all deployments."""
        return await self._shell.answer(context, NEEDED, lambda _: self._deployments.list_deployments(request))

    async def ScaleDeployment(self, request: pb.ScaleDeploymentRequest, context: Context) -> pb.Deployment:  # noqa: N802
        """Changes a deployment's number of replicas."""
        return await self._shell.answer(context, NEEDED, lambda _: self._deployments.scale(request))

    async def ListReplicas(self, request: pb.ListReplicasRequest, context: Context) -> pb.ListReplicasResponse:  # noqa: N802
        """Tells all replicas."""
        return await self._shell.answer(context, NEEDED, lambda _: self._deployments.list_replicas(request))

    async def DrainReplica(self, request: pb.DrainReplicaRequest, context: Context) -> pb.DrainReplicaResponse:  # noqa: N802
        """Lets a replica hand over and end."""
        return await self._shell.answer(context, NEEDED, lambda _: self._deployments.drain(request))

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> pb.CreateKeyResponse:  # noqa: N802
        """Makes a key."""
        return await self._shell.answer(context, NEEDED, lambda caller: self._keys.create(request, caller))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:  # noqa: N802
        """Tells all keys."""
        return await self._shell.answer(context, NEEDED, lambda _: self._keys.list_keys(request))

    async def UpdateKey(self, request: pb.UpdateKeyRequest, context: Context) -> pb.Key:  # noqa: N802
        """Changes a key."""
        return await self._shell.answer(context, NEEDED, lambda caller: self._keys.update(request, caller))

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.RevokeKeyResponse:  # noqa: N802
        """Ends a key."""
        return await self._shell.answer(context, NEEDED, lambda caller: self._keys.revoke(request, caller))

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:  # noqa: N802
        """Tells what tenants have used."""
        return await self._shell.answer(context, NEEDED, lambda _: self._usage.get(request))
