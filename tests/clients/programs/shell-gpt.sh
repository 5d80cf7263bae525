# shell-gpt: a prompt, and a chat that goes on.
export API_BASE_URL=$OPENAI_BASE_URL DEFAULT_MODEL=$MODEL USE_LITELLM=false
sgpt --no-cache "Hello"
sgpt --no-cache --chat harbour "Hello"
sgpt --no-cache --chat harbour "How are you?"
