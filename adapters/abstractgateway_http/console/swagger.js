"use strict";
// Swagger UI before version 5 reads OpenAPI 3.0 only, so it is given the document in the words of that version. The
// document itself stays as it is.

const isNull = (schema) => schema.type === "null";

// 3.0 has no type "null"; a schema says of itself that the value may be missing.
const nullable = (choices) => {
  if (!choices.some(isNull)) return { anyOf: choices };
  const others = choices.filter((schema) => !isNull(schema));
  const plain = others.length === 1 && !("$ref" in others[0]) ? others[0] : { anyOf: others };
  return { ...plain, nullable: true };
};

const inOlderWords = (value) => {
  if (Array.isArray(value)) return value.map(inOlderWords);
  if (value === null || typeof value !== "object") return value;
  const { type, anyOf, exclusiveMinimum, ...rest } = value;
  const made = Object.fromEntries(Object.entries(rest).map(([name, part]) => [name, inOlderWords(part)]));
  if (Array.isArray(type)) Object.assign(made, nullable(type.map((name) => ({ type: name }))));
  else if (type !== undefined) made.type = inOlderWords(type);
  if (anyOf) Object.assign(made, nullable(inOlderWords(anyOf)));
  if (typeof exclusiveMinimum === "number") Object.assign(made, { minimum: exclusiveMinimum, exclusiveMinimum: true });
  return made;
};

const olderDocument = (text) => JSON.stringify({ ...inOlderWords(JSON.parse(text)), openapi: "3.0.3" });

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null,
  persistAuthorization: false,
  plugins: [{ statePlugins: { spec: { wrapActions: { updateSpec: (original) => (text) => original(olderDocument(text)) } } } }],
});
