"""The canary: a model of the server's own, deleted while it answers, and a search for what is left."""
