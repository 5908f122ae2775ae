"""What the tests of the stores share."""

import pytest

from semvlp.names import StoreFormat


@pytest.fixture(name="format", params=["tar", "lmdb"])
def store_format(request: pytest.FixtureRequest) -> StoreFormat:
    """Either kind of store."""
    kind: StoreFormat = request.param
    return kind
