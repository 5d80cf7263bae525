# llm: going on with a conversation, tools, a schema.
sed -i 's/^  model_name/  supports_tools: true\n  supports_schema: true\n  model_name/' "$(dirname "$(llm logs path)")/extra-openai-models.yaml"
llm --model harbour --continue "How are you?"
llm --model harbour --tool llm_time "What is the weather in Paris?"
llm --model harbour --schema 'sure bool' Hello
