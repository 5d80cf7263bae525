"""`/v1/organization`, for admin keys: one module a resource, as `client.admin.organization` has them."""
