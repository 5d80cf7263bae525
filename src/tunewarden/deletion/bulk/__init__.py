"""Many models by one request, by ids or by a filter."""
