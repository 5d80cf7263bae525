"""Tunewarden beside other gateways."""
