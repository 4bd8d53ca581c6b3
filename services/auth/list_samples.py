"""ListSamples: what was kept of sampled requests, for people to read."""

from __future__ import annotations

from gen.weir.auth.v1 import ListSamplesRequest, ListSamplesResponse, Scope
from meshkit.errors import InvalidRequest
from meshkit.scopes import need
from services.auth.domain.admin import Admin
from services.auth.ports import SampleStore

USUAL_PAGE = 20
MAX_PAGE = 100


class ListSamples:
    """Newest first."""

    def __init__(self, store: SampleStore) -> None:
        self._store = store

    async def __call__(self, request: ListSamplesRequest, admin: Admin) -> ListSamplesResponse:
        """Raises Forbidden without the scope admin, InvalidRequest, and UpstreamError while the store is away."""
        need(admin.scopes, Scope.ADMIN)
        if not 0 <= request.page_size <= MAX_PAGE:
            raise InvalidRequest(f"page_size must be 1 to {MAX_PAGE}", param="page_size")
        return ListSamplesResponse(
            samples=await self._store.newest(request.key_id, request.page_size or USUAL_PAGE)
        )
