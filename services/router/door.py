"""The door of every RPC of the router: who comes in, and what becomes of those who do not."""

from __future__ import annotations

from types import TracebackType

from gen.rpc import RpcContext
from gen.weir.auth.v1 import Scope
from gen.weir.type.v1 import Principal
from meshkit.errors import Forbidden, WeirError
from services.router.authenticate import Authenticate
from services.router.client_address import client_address
from services.router.domain.permissions import Caller
from services.router.rates.refusals import OverLimit
from services.router.refusals import REFUSED, Refusals

AUTHORIZATION = "authorization"
_OURS = (Forbidden, OverLimit)
"""What a caller that came in is still refused for; the targets' own refusals are none of it."""


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

    __slots__ = ("_action", "_any_of", "_context", "_door", "_who")

    def __init__(self, door: Door, context: RpcContext, action: str, any_of: tuple[Scope, ...]) -> None:
        self._door = door
        self._context = context
        self._action = action
        self._any_of = any_of
        self._who: Principal | None = None

    async def __aenter__(self) -> Caller:
        header, authenticate = self._context.metadata.get(AUTHORIZATION), self._door.authenticate
        try:
            key = await authenticate.recognised(header)
            self._who = key.principal
            return authenticate.admitted(key, self._address, *self._any_of)
        except REFUSED as error:
            await self._refused(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, _OURS):
            await self._refused(error)

    async def _refused(self, error: WeirError) -> None:
        await self._door.refusals.refused(error, self._action, self._address(), self._who)

    def _address(self) -> str:
        return client_address(self._context.peer, self._context.metadata)
