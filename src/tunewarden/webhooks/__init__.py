"""Webhooks: events of an organization, sent to endpoints that its Owners set up (standardwebhooks.com)."""
