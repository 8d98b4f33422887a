"""A valid OAuth 2.0 access token, always there."""

__version__ = "0.1.0"
