"""Administration by one major of the SDK, in a process of its own: MAJOR URL ADMIN_KEY."""

import sys

import openai


def main() -> None:
    major, url, key = sys.argv[1:]
    print(f"openai {openai.__version__}")
    assert openai.__version__.startswith(f"{major}.")
    client = openai.OpenAI(base_url=url, api_key="unused", admin_api_key=key, max_retries=0)
    resource = client.admin.organization
    project = resource.projects.create(name=f"of major {major}")
    invite = resource.invites.create(
        email=f"major{major}@example.com",
        role="reader",
        projects=[{"id": project.id, "role": "member"}],
    )
    assert next(one.id for one in resource.invites.list(limit=1)) == invite.id
    assert resource.invites.delete(invite.id).deleted
    (owner,) = [user for user in resource.users.list() if user.role == "owner"]
    assert (
        resource.projects.users.create(project.id, user_id=owner.id, role="member").id == owner.id
    )
    assert [one.id for one in resource.projects.users.list(project.id)] == [owner.id]
    assert resource.projects.users.delete(owner.id, project_id=project.id).deleted
    assert resource.projects.archive(project.id).status == "archived"
    for refused, kind in (
        (lambda: resource.users.delete(owner.id), openai.ConflictError),
        (resource.groups.list, openai.NotFoundError),
    ):
        try:
            refused()
        except kind as error:
            print(error.code)
        else:
            raise AssertionError(kind)


if __name__ == "__main__":
    main()
