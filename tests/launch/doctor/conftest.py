from tests.launch.conftest import launcher

__all__ = ["launcher"]
