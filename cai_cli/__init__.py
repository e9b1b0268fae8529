"""Build Constitutional AI and RLAIF datasets from the command line."""

__version__ = "0.1.0"
