"""A list of layers of one type: torch's nn.ModuleList, which alone would return its items as plain modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, overload

from torch import nn
from typing_extensions import TypeVar

LayerT = TypeVar("LayerT", bound=nn.Module, default=nn.Module)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    class LayerList(nn.ModuleList, Generic[LayerT]):
        """nn.ModuleList whose items have the type LayerT; at run time it is nn.ModuleList itself."""

        def __init__(self, modules: Iterable[LayerT] = ()) -> None: ...

        def __iter__(self) -> Iterator[LayerT]: ...

        @overload
        def __getitem__(self, idx: slice) -> LayerList[LayerT]: ...

        @overload
        def __getitem__(self, idx: int) -> LayerT: ...

        def __getitem__(self, idx: int | slice) -> LayerT | LayerList[LayerT]: ...

else:
    LayerList = nn.ModuleList
