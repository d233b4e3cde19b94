"""Signing people in, and taking access tokens, by an OpenID Connect provider."""
