// Portkey's gateway adds headers to what fetch() returned. Node refuses that ("immutable"), and every stream would
// be a 500: a copy may be changed.
const original = globalThis.fetch;
globalThis.fetch = async (...given) => {
  const answer = await original(...given);
  return new Response(answer.body, answer);
};
