"""The agent: meters one host, and delivers what it metered."""

# The release, as in pyproject.toml. Asking the package's metadata for it would cost the agent more than a megabyte.
__version__ = "0.1.0"
