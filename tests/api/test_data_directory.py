"""A data directory while a server uses it."""

from tests.support.servers import Server

from tunewarden.deletion.inventory import FILES


def test_every_file_of_a_data_directory_in_use_is_in_the_inventory(server: Server) -> None:
    model = server.make_model()
    assert server.request("DELETE", f"/v1/models/{model.id}", key=server.owner_key).status == 200
    assert server.cli("audit", "list").returncode == 0
    assert (server.data / "admin.key").exists(), "a command with --data made it"
    known = {place.name for place in FILES}
    assert {path.name for path in server.data.iterdir()} <= known
