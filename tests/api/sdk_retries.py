"""Run by test_cut_answers.py: deletes the given models through the Python SDK, one after the other.

`python sdk_retries.py BASE_URL KEY MODEL…`
"""

import sys

import openai


def main() -> None:
    url, key, *models = sys.argv[1:]
    client = openai.OpenAI(base_url=url, api_key=key, max_retries=20)
    for model in models:
        deleted = client.models.delete(model)
        assert (deleted.id, deleted.deleted) == (model, True)
    second: object = 0
    try:
        openai.OpenAI(base_url=url, api_key=key, max_retries=0).models.delete(models[0])
    except openai.APIStatusError as error:
        second = error.status_code
    except openai.APIConnectionError as error:
        second = type(error).__name__
    print(f"deleted {len(models)}, a second time: {second}")


if __name__ == "__main__":
    main()
