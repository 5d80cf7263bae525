"""Signing in at an identity provider, by OpenID Connect: authorization code with PKCE. Loaded where it is used."""
