import pytest

# Where the assertions of several files stand, a failure tells as much as it does in a test.
pytest.register_assert_rewrite("tests.comparison", "tests.looks", "tests.settled")
