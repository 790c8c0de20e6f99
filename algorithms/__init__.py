"""The shipped algorithms, one small file a family."""
