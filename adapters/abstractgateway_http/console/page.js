"use strict";
// Texts from the gateway are put into the page as text only, never as markup.

let token = "";

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

// What stands between backticks is code.
const prose = (text) => text.split("`").map((part, place) => (place % 2 ? element("code", { textContent: part }) : part));

const resolve = (schema, document_) => {
  const name = schema && schema.$ref;
  return name ? document_.components.schemas[name.split("/").pop()] : schema || {};
};

const sample = (schema) => {
  if ("default" in schema) return schema.default;
  if (schema.anyOf) return null;
  return { string: "", integer: 0, number: 0, boolean: false, object: {}, array: [] }[schema.type] ?? null;
};

const field = (name, schema, about, isRequired, kind = "text") => {
  const input = element("input", { name, type: kind, required: isRequired });
  if (kind === "text" && schema.default !== undefined) input.placeholder = String(schema.default);
  const label = element("label", {}, name + (isRequired ? " *" : ""), input);
  if (about) label.append(element("span", { className: "about" }, ...prose(about)));
  return { label, input };
};

const bodyFields = (operation, document_) => {
  const content = (operation.requestBody || {}).content || {};
  const [type] = Object.keys(content);
  if (!type) return { labels: [], read: () => ({}) };
  const schema = resolve(content[type].schema, document_);
  const required = schema.required || [];
  if (type === "application/json") {
    const initial = Object.fromEntries(
      Object.entries(schema.properties)
        .filter(([name, part]) => required.includes(name) || sample(part) !== null)
        .map(([name, part]) => [name, sample(part)]),
    );
    const input = element("textarea", { value: JSON.stringify(initial, null, 2), spellcheck: false });
    const abouts = Object.entries(schema.properties).map(([name, part]) =>
      element("span", {}, ...prose(`\`${name}\`${required.includes(name) ? " *" : ""}: ${part.description}`)));
    const label = element("label", {}, "body", input, element("span", { className: "about lines" }, ...abouts));
    return { labels: [label], read: () => ({ body: input.value, type }) };
  }
  const fields = Object.entries(schema.properties).map(([name, part]) =>
    field(name, part, part.description, required.includes(name), part.format === "binary" ? "file" : "text"));
  const read = () => {
    const form = new FormData();
    for (const { input } of fields) {
      if (input.type === "file") { if (input.files[0]) form.append(input.name, input.files[0]); }
      else if (input.value) form.append(input.name, input.value);
    }
    return { body: form };
  };
  return { labels: fields.map(({ label }) => label), read };
};

const show = async (response, output, signal) => {
  output.textContent = `${response.status} ${response.statusText}\n`;
  for (const [name, value] of response.headers) output.textContent += `${name}: ${value}\n`;
  output.textContent += "\n";
  if ((response.headers.get("content-type") || "").includes("json")) {
    const text = await response.text();
    try { output.textContent += JSON.stringify(JSON.parse(text), null, 2); } catch { output.textContent += text; }
    return;
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader.read(); !part.done && !signal.aborted; part = await reader.read()) {
    output.textContent += part.value;
  }
};

const callForm = (method, path, operation, document_) => {
  const parameters = (operation.parameters || []).map((parameter) => ({
    ...parameter, ...field(parameter.name, parameter.schema, parameter.description, parameter.required),
  }));
  const body = bodyFields(operation, document_);
  const output = element("pre", { hidden: true });
  const stop = element("button", { type: "button", textContent: "Stop", hidden: true });
  const form = element("form", { className: "call" });
  const request = () => {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const query = new URLSearchParams();
    let target = path;
    for (const { name, input, in: place } of parameters) {
      if (place === "path") target = target.replace(`{${name}}`, encodeURIComponent(input.value));
      else if (input.value && place === "query") query.append(name, input.value);
      else if (input.value) headers[name] = input.value;
    }
    const sent = body.read();
    if (sent.type) headers["Content-Type"] = sent.type;
    const url = target + (query.size ? `?${query}` : "");
    return [url, { method: method.toUpperCase(), headers, body: sent.body, cache: "no-store" }];
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const running = new AbortController();
    stop.onclick = () => running.abort();
    output.hidden = stop.hidden = false;
    output.textContent = "…";
    const [url, options] = request();
    try {
      await show(await fetch(url, { ...options, signal: running.signal }), output, running.signal);
    } catch (error) {
      output.textContent += running.signal.aborted ? "\nstopped" : `\n${error}`;
    }
    stop.hidden = true;
  });
  const answers = element("table");
  for (const [status, answer] of Object.entries(operation.responses)) {
    answers.append(element("tr", {}, element("td", { textContent: status }),
      element("td", {}, ...prose(answer.description))));
  }
  form.append(...parameters.map(({ label }) => label), ...body.labels,
    element("div", { className: "buttons" }, element("button", { textContent: "Send" }), stop), output, answers);
  return form;
};

const routeOf = (method, path, operation, document_) => {
  const head = element("summary", {},
    element("span", { className: `method ${method}`, textContent: method.toUpperCase() }),
    element("span", { className: "path", textContent: path }),
    element("span", { className: "about", textContent: operation.summary }));
  const route = element("details", {}, head);
  route.addEventListener("toggle", () => {
    if (route.open && route.children.length === 1) route.append(callForm(method, path, operation, document_));
  });
  return route;
};

const groupOf = (description) => {
  const [title, about] = description.split(/:\s*(.*)/);
  return element("section", {}, element("h2", {}, title, element("small", { textContent: about })));
};

const load = async () => {
  const main = document.getElementById("routes");
  const document_ = await (await fetch("/openapi.json")).json();
  document.getElementById("version").textContent = document_.info.version;
  const groups = new Map(document_.tags.map(({ name, description }) => [name, groupOf(description)]));
  for (const [path, operations] of Object.entries(document_.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      const [tag] = operation.tags;
      groups.get(tag).append(routeOf(method, path, operation, document_));
    }
  }
  main.replaceChildren(...groups.values());
};

document.getElementById("authorize").addEventListener("submit", async (event) => {
  event.preventDefault();
  const state = document.getElementById("authorized");
  token = document.getElementById("token").value.trim();
  if (!token) { state.textContent = "not authorized"; return; }
  state.textContent = "…";
  try {
    const answer = await fetch("/api/gateway/ping", { headers: { Authorization: `Bearer ${token}` } });
    const isRefused = [401, 429, 503].includes(answer.status);
    state.textContent = isRefused ? `not authorized: ${(await answer.json()).detail}` : "authorized";
  } catch (error) {
    state.textContent = `not authorized: ${error}`;
  }
});

load().catch((error) => { document.getElementById("routes").textContent = `The routes cannot be shown: ${error}`; });
