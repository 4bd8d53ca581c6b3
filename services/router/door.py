"""The door of every RPC of the router: who comes in, and what becomes of those who do not."""

from __future__ import annotations

from types import TracebackType

from gen.rpc import RpcContext
from gen.weir.auth.v1 import Scope
from meshkit.errors import WeirError
from services.router.authenticate import Authenticate
from services.router.client_address import client_address
from services.router.domain.permissions import Caller
from services.router.refusals import REFUSED, Refusals

AUTHORIZATION = "authorization"


class Door:
    """Recognises callers, and hands whatever is refused to them, here or later, to Refusals."""

    def __init__(self, authenticate: Authenticate, refusals: Refusals) -> None:
        self.authenticate = authenticate
        self.refusals = refusals

    def opened(self, context: RpcContext, action: str, *any_of: Scope) -> _Opened:
        """For `async with`: gives the caller, and lasts as long as it is answered.

        Args:
            context: of the call.
            action: the RPC's path, for the audit.
            any_of: the scopes of which the caller needs one.

        Entering raises what Authenticate.authenticate raises.
        """
        return _Opened(self, context, action, any_of)


class _Opened:
    """One call. A class, because a generator made into a context manager costs a warm key a third more."""

    __slots__ = ("_action", "_any_of", "_caller", "_context", "_door")

    def __init__(self, door: Door, context: RpcContext, action: str, any_of: tuple[Scope, ...]) -> None:
        self._door = door
        self._context = context
        self._action = action
        self._any_of = any_of
        self._caller: Caller | None = None

    async def __aenter__(self) -> Caller:
        header = self._context.metadata.get(AUTHORIZATION)
        try:
            self._caller = await self._door.authenticate.authenticate(header, self._address, *self._any_of)
        except REFUSED as error:
            await self._refused(error)
            raise
        return self._caller

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, WeirError) and isinstance(error, REFUSED):
            await self._refused(error)

    async def _refused(self, error: WeirError) -> None:
        who = None if self._caller is None else self._caller.principal
        await self._door.refusals.refused(error, self._action, self._address(), who)

    def _address(self) -> str:
        return client_address(self._context.peer, self._context.metadata)
