# The recipe's traces came, at the sink that the runner names.
curl --silent --show-error "$SINK" | grep otel
